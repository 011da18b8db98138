"""The same on SQLite and the file broker, as with `make run`: requests/s, and how fast a backlog drains."""

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime

from bench.designs import Design, drain
from bench.figures import Figure
from bench.interleaving import doors
from bench.load import DOCUMENT_DATE, webhooks
from bench.measures.acknowledging import ratios
from faults.house import House

MEASURE = "embedded"


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Figure]:
    rounds, seconds = (1, 1) if quick else (3, 3)
    with doors(embedded=True) as houses:
        yield from ratios(MEASURE, houses.speeds(rounds=rounds, seconds=seconds, say=say), {})
    backlog = 5_000 if quick else 100_000
    with Design.OURS.house(embedded=True, only_the_door=True) as house:
        fill(house, backlog)
        took = drain(house)
        Design.OURS.require_verified(house)
    say(f"{backlog} waiting webhooks were applied in {took:.1f} s")
    yield Figure(MEASURE, f"apply a backlog of {backlog}", "webhooks/s", [backlog / took])


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
