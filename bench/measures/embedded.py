"""The same on SQLite and the file broker, as with `make run`: requests/s, and how fast a backlog drains."""

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime

from bench.load import DOCUMENT_DATE, random_webhooks
from bench.measurements import Bound, Measurement
from bench.measures.ingest import ratios
from bench.rounds import endpoint_bench
from bench.systems import System, drain
from tests.harness.procfile_stack import ProcfileStack

MEASURE = "embedded"
NO_CLIFF = 0.5


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Measurement]:
    rounds, seconds = (1, 1) if quick else (2, 4)
    with endpoint_bench(embedded=True) as houses:
        yield from ratios(MEASURE, houses.speeds(rounds=rounds, seconds=seconds, say=say), {})
    backlog = 5_000 if quick else 100_000
    with System.OURS.stack(embedded=True, only_the_door=True) as stack:
        fill(stack, backlog)
        duration = drain(stack)
        System.OURS.require_verified(stack)
        first, last = first_and_last_fifth(stack)
    say(f"{backlog} waiting webhooks were applied in {duration:.1f} s")
    yield Measurement(MEASURE, f"apply a backlog of {backlog}", "webhooks/s", [backlog / duration])
    what = f"the last fifth of a backlog of {backlog}, against the first"
    yield Measurement(MEASURE, what, "webhooks/s", [last], [first], Bound(NO_CLIFF, at_least=True))


def first_and_last_fifth(stack: ProcfileStack) -> tuple[float, float]:
    """Webhooks applied a second."""
    moments = [
        datetime.fromisoformat(at)
        for (at,) in stack.sql("SELECT applied_at FROM ingest_webhook ORDER BY applied_at")
    ]
    fifth = len(moments) // 5
    first, last = moments[fifth] - moments[0], moments[-1] - moments[-1 - fifth]
    return fifth / first.total_seconds(), fifth / last.total_seconds()


def fill(stack: ProcfileStack, count: int) -> None:
    """Put new webhooks into the inbox, all at once, as the door would have stored them."""
    now = datetime.now(UTC).replace(tzinfo=None)
    date = datetime.fromisoformat(DOCUMENT_DATE).replace(tzinfo=None)
    rows = (
        (each.operation_id.hex, *each[1:], str(date), each.body, str(now), "received", 0, "", "", "bank")
        for each in random_webhooks(random.Random(), count)
    )
    columns = "operation_id, payer_inn, amount_kopecks, document_number, document_date, body, received_at"
    with closing(stack.session()) as session:
        session.executemany(
            f"INSERT INTO ingest_webhook ({columns}, status, attempts, last_error, error_fingerprint, source) "
            f"VALUES ({', '.join('?' * 12)})",
            rows,
        )
        session.commit()
