"""Throughput and latency of the endpoint with no worker behind it: Prihod's and the baseline designs'."""

# Only the web processes run: a worker on the same cores would be measured, too. That favours designs with a
# queue, Prihod and a message per webhook, over the synchronous one, which does all its work in the request;
# that the bank need not wait for that work is the purpose of a queue. `posting` and `latency` measure what
# the work costs. Prihod's backlog is drained in the end, and has to be exact.

from collections.abc import Callable, Iterator
from statistics import median

from bench.measurements import Measurement, at_least, at_most
from bench.rounds import EndpointBench, Speeds, endpoint_bench
from bench.systems import System, drain

MEASURE = "ingest"
RATIOS_MIN = {System.PARSING_ONLY: 0.45, System.MESSAGE_PER_WEBHOOK: 3.0, System.SYNCHRONOUS: 6.0}
P99_RATIO_MAX = 0.6
LOAD_SHARE = 0.6  # of the throughput of a message per webhook: the rate at which latencies are compared


def measure(quick: bool, log: Callable[[str], None]) -> Iterator[Measurement]:
    rounds, seconds, p99_seconds = (2, 2, 2) if quick else (3, 5, 10)
    with endpoint_bench() as bench:
        speeds = bench.speeds(rounds=rounds, seconds=seconds, log=log)
        yield from ratios(MEASURE, speeds, RATIOS_MIN)
        yield from cpu_costs(bench)
        rate = LOAD_SHARE * median(speeds[System.MESSAGE_PER_WEBHOOK])
        yield compare_latencies(bench, rounds=rounds, seconds=p99_seconds, rate=rate, log=log)
        drain(bench.stacks[System.PRIHOD])
        bench.require_exact(System.PRIHOD)


def ratios(measure: str, speeds: Speeds, minimums: dict[System, float]) -> Iterator[Measurement]:
    for system in speeds:
        if system is not System.PRIHOD:
            bound = at_least(minimums[system]) if system in minimums else None
            name = f"requests/s against {system}"
            yield Measurement(measure, name, "requests/s", speeds[System.PRIHOD], speeds[system], bound)


def cpu_costs(bench: EndpointBench) -> Iterator[Measurement]:
    """Yield CPU time per webhook, which varies far less than requests/s with other load on the machine."""
    for (system, part), microseconds in bench.microseconds.items():
        if any(microseconds):
            yield Measurement(MEASURE, f"CPU of {part}, {system}", "µs/webhook", microseconds)


def compare_latencies(
    bench: EndpointBench, *, rounds: int, seconds: float, rate: float, log: Callable[[str], None]
) -> Measurement:
    p99s: dict[System, list[float]] = {System.PRIHOD: [], System.MESSAGE_PER_WEBHOOK: []}
    for number in range(1, rounds + 1):
        for system, values in p99s.items():
            values.append(bench.p99_milliseconds(system, per_second=rate, seconds=seconds))
        results = ", ".join(f"{system} {values[-1]:.1f} ms" for system, values in p99s.items())
        log(f"p99 at {rate:.0f}/s, round {number} of {rounds}: {results}")
    values, baseline = p99s.values()
    name = f"p99 against {System.MESSAGE_PER_WEBHOOK}, same rate"
    return Measurement(MEASURE, name, "ms", values, baseline, at_most(P99_RATIO_MAX))
