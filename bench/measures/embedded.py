"""SQLite and the file broker, as with `make run`: requests/s, and how fast a backlog drains."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime

from bench import inbox_rows
from bench.measurements import Measurement, at_least
from bench.measures.endpoint import ratios
from bench.rounds import endpoint_bench
from bench.systems import System, drain
from tests.harness.procfile_stack import ProcfileStack

MEASURE = "embedded"
SYSTEMS = (System.PRIHOD, System.PARSING_ONLY, System.MESSAGE_PER_WEBHOOK)
LAST_FIFTH_RATIO_MIN = 0.5


def measure(quick: bool, log: Callable[[str], None]) -> Iterator[Measurement]:
    rounds, seconds = (1, 1) if quick else (2, 3)
    with endpoint_bench(SYSTEMS, embedded=True) as bench:
        for number in range(1, rounds + 1):
            log(f"round {number} of {rounds}: {bench.run_round(seconds)}")
        bench.require_exact()
        yield from ratios(MEASURE, bench, bounded=False)
    backlog = 5_000 if quick else 100_000
    with System.PRIHOD.stack(embedded=True, only_web=True) as stack:
        with closing(stack.session()) as session:
            inbox_rows.insert(session, inbox_rows.make(backlog), rows_per_statement=backlog)
            session.commit()
        drain_seconds = drain(stack)
        System.PRIHOD.require_verified(stack)
        first, last = first_and_last_fifth(stack)
    log(f"{backlog} webhooks were applied in {drain_seconds:.1f} s")
    yield Measurement(MEASURE, f"apply a backlog of {backlog}", "webhooks/s", [backlog / drain_seconds])
    name = f"the last fifth of a backlog of {backlog}, against the first"
    yield Measurement(MEASURE, name, "webhooks/s", [last], [first], at_least(LAST_FIFTH_RATIO_MIN))


def first_and_last_fifth(stack: ProcfileStack) -> tuple[float, float]:
    """Return the webhooks applied per second in the first and in the last fifth of the backlog."""
    times = [
        datetime.fromisoformat(at)
        for (at,) in stack.sql("SELECT applied_at FROM ingest_webhook ORDER BY applied_at")
    ]
    fifth = len(times) // 5
    first, last = times[fifth] - times[0], times[-1] - times[-1 - fifth]
    return fifth / first.total_seconds(), fifth / last.total_seconds()
