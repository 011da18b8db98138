"""SQLite and the file broker, as with `make run`: requests/s, and how fast a backlog drains."""

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime

from bench.load import DOCUMENT_DATE, random_webhooks
from bench.measurements import Measurement, at_least
from bench.measures.ingest import ratios
from bench.rounds import endpoint_bench
from bench.systems import System, drain
from tests.harness.procfile_stack import ProcfileStack

MEASURE = "embedded"
LAST_FIFTH_RATIO_MIN = 0.5


def measure(quick: bool, log: Callable[[str], None]) -> Iterator[Measurement]:
    rounds, seconds = (1, 1) if quick else (2, 4)
    with endpoint_bench(embedded=True) as bench:
        yield from ratios(MEASURE, bench.speeds(rounds=rounds, seconds=seconds, log=log), {})
    backlog = 5_000 if quick else 100_000
    with System.PRIHOD.stack(embedded=True, only_web=True) as stack:
        fill(stack, backlog)
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


def fill(stack: ProcfileStack, count: int) -> None:
    """Insert webhooks into the inbox, as the endpoint would have stored them."""
    now = datetime.now(UTC).replace(tzinfo=None)
    date = datetime.fromisoformat(DOCUMENT_DATE).replace(tzinfo=None)
    rows = (
        (each.operation_id.hex, *each[1:], str(date), each.body, str(now), "received", 0, "", "", "bank")
        for each in random_webhooks(random.Random(), count)
    )
    columns = "operation_id, payer_inn, amount_kopecks, document_number, document_date, body, received_at"
    with closing(stack.session()) as session:
        session.executemany(
            f"INSERT INTO ingest_webhook ({columns}, status, attempts, last_error, error_fingerprint, "
            f"source) VALUES ({', '.join('?' * 12)})",
            rows,
        )
        session.commit()
