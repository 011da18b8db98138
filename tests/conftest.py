"""What every test stands on: the database of the run, and the ledger's triggers around a flush."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.conf import settings
from django.db import connection
from django.test import TransactionTestCase

from ledger import triggers


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """SQLite in a file: one in memory could not be shared with other threads under real locks."""
    if settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        file: Path = tmp_path_factory.mktemp("database") / "test.sqlite3"
        connection.settings_dict["TEST"]["NAME"] = str(file)


@pytest.fixture(scope="session", autouse=True)
def flush_may_empty_the_ledger() -> Iterator[None]:
    """After a test with real commits Django empties the tables, which the triggers rightly refuse."""
    flush = TransactionTestCase._fixture_teardown

    def flush_without_triggers(case: TransactionTestCase) -> None:
        triggers.drop(connection)
        try:
            flush(case)
        finally:
            triggers.create(connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", flush_without_triggers)
        yield


@pytest.fixture(scope="session", autouse=True)
def broker_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The file broker of a running `make run` must not hear what the tests send."""
    if current_app.conf.broker_transport == "worker.filebroker:Transport":
        folder = tmp_path_factory.mktemp("broker")
        current_app.conf.broker_transport_options |= {
            "data_folder_in": str(folder / "messages"),
            "control_folder": str(folder / "control"),
        }


@pytest.fixture
def sent() -> Iterator[Callable[[], list[Any]]]:
    """Takes what was sent to the workers so far: a list of (task name, keyword arguments, task id)."""
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
