"""The same on SQLite and the file broker, as with `make run`: requests/s, and how fast a backlog drains."""

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime

from bench.designs import Design, drain
from bench.figures import Bound, Figure
from bench.interleaving import doors
from bench.load import DOCUMENT_DATE, webhooks
from bench.measures.acknowledging import ratios
from faults.house import House

MEASURE = "embedded"
NO_CLIFF = 0.5


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Figure]:
    rounds, seconds = (1, 1) if quick else (2, 4)
    with doors(embedded=True) as houses:
        yield from ratios(MEASURE, houses.speeds(rounds=rounds, seconds=seconds, say=say), {})
    backlog = 5_000 if quick else 100_000
    with Design.OURS.house(embedded=True, only_the_door=True) as house:
        fill(house, backlog)
        took = drain(house)
        Design.OURS.require_verified(house)
        first, last = first_and_last_fifth(house)
    say(f"{backlog} waiting webhooks were applied in {took:.1f} s")
    yield Figure(MEASURE, f"apply a backlog of {backlog}", "webhooks/s", [backlog / took])
    what = f"the last fifth of a backlog of {backlog}, against the first"
    yield Figure(MEASURE, what, "webhooks/s", [last], [first], Bound(NO_CLIFF, at_least=True))


def first_and_last_fifth(house: House) -> tuple[float, float]:
    """Webhooks applied a second."""
    moments = [
        datetime.fromisoformat(at)
        for (at,) in house.sql("SELECT applied_at FROM ingest_webhook ORDER BY applied_at")
    ]
    fifth = len(moments) // 5
    first, last = moments[fifth] - moments[0], moments[-1] - moments[-1 - fifth]
    return fifth / first.total_seconds(), fifth / last.total_seconds()


def fill(house: House, count: int) -> None:
    """Put new webhooks into the inbox, all at once, as the door would have stored them."""
    now = datetime.now(UTC).replace(tzinfo=None)
    date = datetime.fromisoformat(DOCUMENT_DATE).replace(tzinfo=None)
    rows = (
        (each.operation_id.hex, *each[1:], str(date), each.body, str(now), "received", 0, "", "", "bank")
        for each in webhooks(random.Random(), count)
    )
    columns = "operation_id, payer_inn, amount_kopecks, document_number, document_date, body, received_at"
    with closing(house.session()) as session:
        session.executemany(
            f"INSERT INTO ingest_webhook ({columns}, status, attempts, last_error, error_kind, source) "
            f"VALUES ({', '.join('?' * 12)})",
            rows,
        )
        session.commit()
