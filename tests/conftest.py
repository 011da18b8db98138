"""Shared fixtures: the test database, its cleanup after each test, and the message broker."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from celery import current_app
from django.conf import settings
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management.color import no_style
from django.db import connection
from django.test import TransactionTestCase

from ledger import triggers

# The same examples in each run, so that a red test is caused by the change; no deadline: the machine may
# be busy.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Use an SQLite file: an in-memory database can't be shared between threads under real locks."""
    if settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        file: Path = tmp_path_factory.mktemp("database") / "test.sqlite3"
        connection.settings_dict["TEST"]["NAME"] = str(file)


@pytest.fixture(scope="session", autouse=True)
def flush_only_filled_tables() -> Iterator[None]:
    """Truncate only tables that have rows after a test with real commits.

    Django would truncate every table and recreate its permissions, which took most of a short test's time.
    The append-only triggers also refuse to have the ledger truncated.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", lambda _: empty(filled_tables()))
        yield


def filled_tables() -> list[str]:
    """Return the tables that have rows, except those that `migrate` fills again after each truncation."""
    filled_by_migrate = {model._meta.db_table for model in (ContentType, Permission)}
    tables = sorted(set(connection.introspection.django_table_names()) - filled_by_migrate)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(f'EXISTS (SELECT 1 FROM {table})' for table in tables)}")
        return [table for table, filled in zip(tables, cursor.fetchone(), strict=True) if filled]


def empty(tables: list[str]) -> None:
    triggers.drop(connection, {name: guard for name, guard in triggers._registered.items() if name in tables})
    try:
        connection.ops.execute_sql_flush(connection.ops.sql_flush(no_style(), tables))
    finally:
        triggers.create(connection)  # including those that the test dropped


@pytest.fixture(scope="session", autouse=True)
def private_broker(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the tests' messages out of the file broker of a running `make run`."""
    if current_app.conf.broker_transport == "worker.file_broker:Transport":
        folder = tmp_path_factory.mktemp("broker")
        current_app.conf.broker_transport_options |= {
            "data_folder_in": str(folder / "messages"),
            "control_folder": str(folder / "control"),
        }


@pytest.fixture
def sent() -> Iterator[Callable[[], list[Any]]]:
    """Return a function that consumes the queued tasks: a list of (name, keyword arguments, task id)."""
    with current_app.connection() as connection_to_broker:
        queues = [queue(connection_to_broker) for queue in current_app.amqp.queues.values()]

        def purge() -> None:
            for queue in queues:
                queue.declare()
                queue.purge()

        def take() -> list[Any]:
            messages = []
            for queue in queues:
                while message := queue.get(no_ack=True):
                    _, kwargs, _ = message.payload
                    messages.append((message.headers["task"], kwargs, message.headers["id"]))
            return messages

        purge()
        yield take
        purge()
