"""Corrupt data for the verification to find, and an inbox that refuses writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction
from django.db.models import Model, QuerySet

from ingest.models import Webhook
from ledger import triggers
from ledger.models import BalanceLog, Organization, Payment

MODELS: list[type[Model]] = [Organization, Payment, BalanceLog, Webhook]


@contextmanager
def unconstrained_tables() -> Iterator[None]:
    """Replace the tables by copies without constraints and triggers, and restore them afterwards.

    Only for tests with real commits: MySQL commits at each of these statements.
    """
    tables = [model._meta.db_table for model in MODELS]
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"CREATE TABLE copy_{table} AS SELECT * FROM {table}")
        for table in tables:
            _rename(table, f"original_{table}")
            _rename(f"copy_{table}", table)
        try:
            yield
        finally:
            for table in tables:
                cursor.execute(f"DROP TABLE {table}")
                _rename(f"original_{table}", table)


@contextmanager
def rolled_back() -> Iterator[None]:
    """Roll back at the end of the block."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@contextmanager
def failing_inbox(message: str) -> Iterator[None]:
    """Make the database refuse each new webhook with the error text `message`."""
    refusal = {
        "sqlite": f"BEGIN SELECT RAISE(ABORT, '{message}'); END",
        "mysql": f"FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{message}'",
    }
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TRIGGER refuse_webhooks BEFORE INSERT ON ingest_webhook {refusal[connection.vendor]}"
        )
        try:
            yield
        finally:
            cursor.execute("DROP TRIGGER refuse_webhooks")


@contextmanager
def without_triggers(*models: type[Model]) -> Iterator[None]:
    """Drop the triggers of these tables for the block. Only for tests with real commits, as above."""
    tables = {model._meta.db_table for model in models}
    guarded = {table: guard for table, guard in triggers._registered.items() if table in tables}
    triggers.drop(connection, guarded)
    try:
        yield
    finally:
        triggers.create(connection, guarded)


def raw_delete(rows: QuerySet[Any]) -> None:
    """Delete `rows` without checking references to them."""
    rows._raw_delete(rows.db)


def _rename(table: str, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO {name}")
