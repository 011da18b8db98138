"""Webhooks as the endpoint would have stored them, inserted without it."""

import random
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from bench.load import DOCUMENT_DATE, random_webhooks

_COLUMNS = (
    *("operation_id", "payer_inn", "amount_kopecks", "document_number", "document_date", "body"),
    *("received_at", "status", "attempts", "last_error", "error_fingerprint", "source", "client_ip"),
)
_DEFAULTS = ("received", 0, "", "", "bank", "127.0.0.1")
Row = tuple[Any, ...]


def make(count: int) -> list[Row]:
    now = datetime.now(UTC).replace(tzinfo=None)
    date = datetime.fromisoformat(DOCUMENT_DATE).replace(tzinfo=None)
    return [
        (each.operation_id.hex, *each[1:], str(date), each.body, str(now), *_DEFAULTS)
        for each in random_webhooks(random.Random(), count)
    ]


def insert(session: Any, rows: Sequence[Row], *, rows_per_statement: int) -> None:
    """Insert the rows; MySQLdb makes one INSERT of each group. The caller commits, or has autocommit."""
    place = "?" if isinstance(session, sqlite3.Connection) else "%s"
    places = ", ".join([place] * len(_COLUMNS))
    statement = f"INSERT INTO ingest_webhook ({', '.join(_COLUMNS)}) VALUES ({places})"
    cursor = session.cursor()
    for first in range(0, len(rows), rows_per_statement):
        cursor.executemany(statement, rows[first : first + rows_per_statement])
