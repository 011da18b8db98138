"""What a door takes and how fast it answers, with nothing behind it: ours, and those of the usual designs."""

# Only the web processes run: with a worker on the same cores, the worker would be measured. That favours
# designs with a queue, ours and a message per webhook, over the synchronous one, which does all its work in
# the request; that the bank need not wait for the work is the point of having a queue. What the work costs,
# `posting` and `latency` say. Ours is drained in the end, and has to be exact.

from collections.abc import Callable, Iterator
from statistics import median

from bench.measurements import Bound, Measurement
from bench.rounds import EndpointBench, Speeds, endpoint_bench
from bench.systems import System, drain

MEASURE = "acknowledge"
RATIOS_MIN = {System.PARSING_ONLY: 0.45, System.MESSAGE_PER_WEBHOOK: 3.0, System.SYNCHRONOUS: 6.0}
P99_RATIO_MAX = 0.6
LOAD_SHARE = 0.6  # of what a message per webhook can take; the rate at which latencies are compared


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Measurement]:
    rounds, seconds, p99_seconds = (2, 2, 2) if quick else (3, 5, 10)
    with endpoint_bench() as houses:
        speeds = houses.speeds(rounds=rounds, seconds=seconds, say=say)
        yield from ratios(MEASURE, speeds, RATIOS_MIN)
        yield from costs(houses)
        rate = LOAD_SHARE * median(speeds[System.MESSAGE_PER_WEBHOOK])
        yield compare_latencies(houses, rounds=rounds, seconds=p99_seconds, rate=rate, say=say)
        drain(houses.houses[System.OURS])
        houses.require_exact(System.OURS)


def ratios(measure: str, speeds: Speeds, at_least: dict[System, float]) -> Iterator[Measurement]:
    for design in speeds:
        if design is not System.OURS:
            bound = Bound(at_least[design], at_least=True) if design in at_least else None
            what = f"requests/s against {design}"
            yield Measurement(measure, what, "requests/s", speeds[System.OURS], speeds[design], bound)


def costs(houses: EndpointBench) -> Iterator[Measurement]:
    """Where the time goes. Unlike requests/s these hardly wander with what else the machine does."""
    for (design, part), microseconds in houses.microseconds.items():
        if any(microseconds):
            yield Measurement(MEASURE, f"CPU of {part}, {design}", "µs/webhook", microseconds)


def compare_latencies(
    houses: EndpointBench, *, rounds: int, seconds: float, rate: float, say: Callable[[str], None]
) -> Measurement:
    p99s: dict[System, list[float]] = {System.OURS: [], System.MESSAGE_PER_WEBHOOK: []}
    for number in range(1, rounds + 1):
        for design, values in p99s.items():
            values.append(houses.p99_milliseconds(design, per_second=rate, seconds=seconds))
        told = ", ".join(f"{design} {values[-1]:.1f} ms" for design, values in p99s.items())
        say(f"p99 at {rate:.0f}/s, round {number} of {rounds}: {told}")
    ours, theirs = p99s.values()
    what = f"p99 against {System.MESSAGE_PER_WEBHOOK}, same rate"
    return Measurement(MEASURE, what, "ms", ours, theirs, Bound(P99_RATIO_MAX, at_least=False))
