"""Shared fixtures: tiers, the test database, its cleanup after each test, and the message broker."""

import gc
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest
import structlog
from celery import current_app
from django.conf import settings
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.core.management.color import no_style
from django.db import connection, connections
from django.test import TransactionTestCase
from django.test.utils import setup_databases
from pytest_django import DjangoDbBlocker

from ingest import doorbell
from ledger import triggers
from tests import tiers
from tests.harness import templates
from tests.private_servers import PRIVATE_DATABASE

# The same examples in each run, so that a red test is caused by the change; no deadline: the machine may
# be busy.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")


def pytest_configure(config: pytest.Config) -> None:
    """Share the templates, and give each of several workers its own temporary folder.

    Files in it, such as heartbeats, have fixed names.
    """
    gc.disable()
    templates.share()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Galera's nodes run as another user and open the folders of this name to it.
        folder = tempfile.TemporaryDirectory(prefix="prihod-", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        os.environ["TMPDIR"] = tempfile.tempdir = folder.name


def pytest_itemcollected(item: pytest.Item) -> None:
    tiers.mark_with_tier(item)


def pytest_runtest_setup() -> None:
    """Let the next query check the connection: tests of programs may last longer than the server keeps it."""
    for opened in connections.all(initialized_only=True):
        opened.health_check_done = False


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    yield
    if share := os.environ.get("LONG_SHARE"):
        items[:], others = tiers.split_by_share(items, share)
        config.hook.pytest_deselected(items=others)
    tiers.slowest_first(items)


def pytest_collection_finish() -> None:
    """Keep the garbage collector, disabled so far, from searching the collected tests again and again."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(10_000)  # objects; the default is 700


@pytest.fixture(autouse=True)
def no_programs_beyond_the_tier(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep the tiers without programs fast, and independent of a machine's programs."""
    if tiers.tier_of(request.node) in tiers.WITHOUT_PROGRAMS:
        yield from tiers.forbid_programs()
    else:
        yield


@pytest.fixture(scope="session")
def django_db_setup(request: pytest.FixtureRequest, django_db_blocker: DjangoDbBlocker) -> None:
    """Use a migrated database, an own one for each worker.

    On SQLite it is a file: an in-memory database can't be shared between threads under real locks. A server
    that is not private gets a database test_… as usual.
    """
    request.getfixturevalue("django_test_environment")
    with django_db_blocker.unblock():
        if connection.vendor == "sqlite":
            folder: Path = request.getfixturevalue("tmp_path_factory").mktemp("database")
            migrated = templates.template("sqlite", make=migrate_here)
            use_sqlite(shutil.copy(migrated / templates.SQLITE_FILE, folder))
        elif PRIVATE_DATABASE not in os.environ:
            setup_databases(verbosity=0, interactive=False)


def migrate_here(folder: Path) -> None:
    """Migrate in this process, which has loaded everything already."""
    folder.mkdir()
    use_sqlite(folder / templates.SQLITE_FILE)
    call_command("migrate", verbosity=0)
    connection.close()


def use_sqlite(file: Path) -> None:
    connection.close()
    connection.settings_dict["NAME"] = str(file)


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
    """Return the tables that have rows, except those that `migrate` fills."""
    filled_models = (ContentType, Permission, Group, Group.permissions.through)
    filled_by_migrate = {model._meta.db_table for model in filled_models}
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


@pytest.fixture(autouse=True)
def time_on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a task finish what a test gives it; in production it ends after a second and rings again."""
    monkeypatch.setattr("worker.tasks.SECONDS_MAX", 60.0)


@pytest.fixture(scope="session", autouse=True)
def static_files_on_demand() -> None:
    """Keep WhiteNoise from listing all static files for each test client, which takes 20 ms."""
    settings.WHITENOISE_AUTOREFRESH = True


@pytest.fixture(scope="session", autouse=True)
def fast_password_hashes() -> None:
    """Hash with MD5: what production hashes with is slow on purpose."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(scope="session", autouse=True)
def private_broker(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the tests' messages out of the file broker of a running `make run`."""
    if current_app.conf.broker_transport == "worker.file_broker:Transport":
        folder = tmp_path_factory.mktemp("broker")
        current_app.conf.broker_transport_options |= {
            "data_folder_in": str(folder / "messages"),
            "control_folder": str(folder / "control"),
        }


@pytest.fixture(scope="session", autouse=True)
def silent_doorbell() -> None:
    """Keep the doorbell's thread from sending one test's ring in the next test."""
    doorbell.ring = lambda: None


@pytest.fixture
def log_debug(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[[ModuleType], None]:
    """Return a function that lets a module log as with LOG_LEVEL=DEBUG."""

    def let(module: ModuleType) -> None:
        logger = logging.getLogger(module.__name__)
        caplog.set_level(logging.DEBUG, logger.name)
        level = structlog.make_filtering_bound_logger(logging.DEBUG)
        monkeypatch.setattr(module, "log", structlog.wrap_logger(logger, wrapper_class=level))

    return let


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
