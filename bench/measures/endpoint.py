"""The endpoint with no worker behind it: CPU time, throughput and p99 against other designs and a floor."""

# Only the web processes run: a worker on the same cores would be measured, too. That favours designs with a
# queue, Prihod and a message per webhook, over the synchronous one, which does all its work in the request;
# that the bank need not wait for that work is the purpose of a queue. `posting` and `latency` measure what
# the work costs. Prihod's backlog is drained in the end, and has to be exact.

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from statistics import median

from bench import inbox_rows
from bench.measurements import Measurement, at_least, at_most
from bench.resource_usage import cpu_seconds
from bench.rounds import EndpointBench, endpoint_bench
from bench.systems import System, drain
from tests.harness.procfile_stack import ProcfileStack

MEASURE = "endpoint"
# Of deliveries per second of CPU time, which wander least.
CPU_RATIOS_MIN = {System.MESSAGE_PER_WEBHOOK: 5.0, System.SYNCHRONOUS: 7.0}
FLOOR_RATIO_MIN = 0.55
RATIOS_MIN = {System.PARSING_ONLY: 0.5, System.MESSAGE_PER_WEBHOOK: 4.5, System.SYNCHRONOUS: 6.0}
P99_RATIO_MAX = 0.4
SENDER_SHARE_MAX = 0.9
LOAD_SHARE = 0.6  # of the throughput of a message per webhook: the rate at which latencies are compared
CPU_UNIT = "deliveries/s of CPU"


def measure(quick: bool, log: Callable[[str], None]) -> Iterator[Measurement]:
    rounds, seconds, p99_rounds, p99_seconds = (2, 1, 1, 2) if quick else (6, 4, 4, 8)
    with endpoint_bench([*System]) as bench:
        floors, per_insert = [], []
        for number in range(1, rounds + 1):
            inserts = count_inserts(bench.stacks[System.PRIHOD])
            stored = System.PRIHOD.stored(bench.stacks[System.PRIHOD])
            results = bench.run_round(seconds)
            stored = System.PRIHOD.stored(bench.stacks[System.PRIHOD]) - stored
            per_insert.append(stored / (count_inserts(bench.stacks[System.PRIHOD]) - inserts))
            parsing = bench.cpu_microseconds(System.PARSING_ONLY)[-1]
            insert = bare_insert_microseconds(
                bench.stacks[System.PARSING_ONLY], 1_000 if quick else 10_000, round(per_insert[-1])
            )
            floors.append(parsing + insert)
            log(f"round {number} of {rounds}: {results}; a bare INSERT costs {insert:.0f} µs a row")
        yield from cpu_ratios(bench, floors)
        yield from ratios(MEASURE, bench)
        rate = LOAD_SHARE * median(bench.per_second[System.MESSAGE_PER_WEBHOOK])
        yield compare_latencies(bench, rounds=p99_rounds, seconds=p99_seconds, rate=rate, log=log)
        yield from cpu_costs(bench)
        yield Measurement(MEASURE, "deliveries per INSERT", "deliveries", per_insert)
        bound = at_most(SENDER_SHARE_MAX)
        yield Measurement(MEASURE, "the sender's share of a core", "of 1", bench.sender_shares, bound=bound)
        drain(bench.stacks[System.PRIHOD])
        bench.require_exact()


def count_inserts(stack: ProcfileStack) -> int:
    return int(stack.sql("SHOW GLOBAL STATUS LIKE 'Com_insert'")[0][1])


def bare_insert_microseconds(stack: ProcfileStack, count: int, rows_per_statement: int) -> float:
    """Return the CPU time a row, of this process and the database, of committed multi-row INSERTs.

    `stack` is the one that stores nothing else.
    """
    rows = inbox_rows.make(count)
    with closing(stack.session()) as session:
        session.autocommit(True)  # noqa: FBT003 PEP 249 has no keyword
        own, database = time.process_time(), cpu_seconds([stack.mariadb.pid])
        inbox_rows.insert(session, rows, rows_per_statement=rows_per_statement)
        used = time.process_time() - own + cpu_seconds([stack.mariadb.pid]) - database
    return 1e6 * used / count


def cpu_ratios(bench: EndpointBench, floors: list[float]) -> Iterator[Measurement]:
    """Compare the CPU time of web and database. The floor is parsing only, and bare INSERTs."""
    own = per_cpu_second(bench.cpu_microseconds(System.PRIHOD))
    for system in bench.stacks:
        if system is not System.PRIHOD and not system.stores_nothing:
            bound = at_least(CPU_RATIOS_MIN[system]) if system in CPU_RATIOS_MIN else None
            other = per_cpu_second(bench.cpu_microseconds(system))
            yield Measurement(MEASURE, f"CPU against {system}", CPU_UNIT, own, other, bound)
    name = "CPU against the floor: parsing only and bare INSERTs"
    yield Measurement(MEASURE, name, CPU_UNIT, own, per_cpu_second(floors), at_least(FLOOR_RATIO_MIN))


def per_cpu_second(microseconds: list[float]) -> list[float]:
    return [1e6 / each for each in microseconds]


def ratios(measure: str, bench: EndpointBench, *, bounded: bool = True) -> Iterator[Measurement]:
    own = bench.per_second[System.PRIHOD]
    for system, others in bench.per_second.items():
        if system is not System.PRIHOD:
            bound = at_least(RATIOS_MIN[system]) if bounded and system in RATIOS_MIN else None
            yield Measurement(measure, f"requests/s against {system}", "requests/s", own, others, bound)


def cpu_costs(bench: EndpointBench) -> Iterator[Measurement]:
    for (system, part), microseconds in bench.microseconds.items():
        if any(microseconds) and (part == "web" or not system.stores_nothing):
            yield Measurement(MEASURE, f"CPU of {part}, {system}", "µs/delivery", microseconds)


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
