"""Damage: for the verification to find, in tables that would refuse it, and a table that takes nothing."""

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
    """Put bare copies, with the same rows, in the place of the tables, and the tables back afterwards.

    For tests with real commits: MySQL ends the transaction at each of these statements.
    """
    tables = [model._meta.db_table for model in MODELS]
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"CREATE TABLE bare_{table} AS SELECT * FROM {table}")
        for table in tables:
            _rename(table, f"kept_{table}")
            _rename(f"bare_{table}", table)
        try:
            yield
        finally:
            for table in tables:
                cursor.execute(f"DROP TABLE {table}")
                _rename(f"kept_{table}", table)


@contextmanager
def rolled_back() -> Iterator[None]:
    """Take back at the end of the block what was written in it."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@contextmanager
def failing_inbox(says: str) -> Iterator[None]:
    """Have the database refuse each new webhook, and say so; all the rest goes on."""
    refusal = {
        "sqlite": f"BEGIN SELECT RAISE(ABORT, '{says}'); END",
        "mysql": f"FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{says}'",
    }
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TRIGGER no_room BEFORE INSERT ON ingest_webhook {refusal[connection.vendor]}")
        try:
            yield
        finally:
            cursor.execute("DROP TRIGGER no_room")


@contextmanager
def without_triggers(*models: type[Model]) -> Iterator[None]:
    """Without the triggers of these tables. For tests with real commits, as above."""
    tables = {model._meta.db_table for model in models}
    guarded = {table: guard for table, guard in triggers._registered.items() if table in tables}
    triggers.drop(connection, guarded)
    try:
        yield
    finally:
        triggers.create(connection, guarded)


def raw_delete(rows: QuerySet[Any]) -> None:
    """Delete `rows` without asking what refers to them."""
    rows._raw_delete(rows.db)


def _rename(table: str, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO {name}")
