"""Fixtures that start stacks. On database servers each stack gets its own database and Redis database."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import redis
from django.db import connection
from pytest_django import DjangoDbBlocker

from tests.acceptance.production import PRODUCTION
from tests.harness.copying import copy_database
from tests.harness.launcher_stack import LauncherStack
from tests.harness.servers import Redis
from tests.harness.templates import UNTOUCHED
from tests.private_servers import PRIVATE_DATABASE

StackBuilder = Callable[..., LauncherStack]


@pytest.fixture(scope="session")
def servers(django_db_blocker: DjangoDbBlocker) -> Callable[..., dict[str, str]]:
    """Return a function that creates the databases of a stack, migrated ones, and returns its environment.

    What it created is removed when the ExitStack is closed.
    """

    def fresh(resources: ExitStack, *, empty: bool = False) -> dict[str, str]:
        environment = {}
        if os.environ.get("DATABASE_URL", "").startswith("mysql:"):
            database = fresh_database(django_db_blocker, empty=empty)
            environment["DATABASE_URL"] = resources.enter_context(database)
        if os.environ.get("REDIS_URL"):
            environment["REDIS_URL"] = resources.enter_context(own_redis_database())
        return environment

    return fresh


@pytest.fixture
def new_stack(tmp_path: Path, servers: Callable[..., dict[str, str]]) -> Iterator[StackBuilder]:
    """Build stacks without starting them, each in its own folder; keywords add to the environment.

    With `empty` the stack's database is not migrated yet. There is one web process, which starts faster.
    """
    with ExitStack() as resources:

        def build(*, empty: bool = False, **environment: str) -> LauncherStack:
            folder = tmp_path / f"stack-{uuid4().hex[:8]}"
            folder.mkdir()
            settings = {"WEB_PROCESSES": "1"} | servers(resources, empty=empty) | environment
            stack = LauncherStack(folder, empty=empty, **settings)
            resources.callback(stack.clean_up)
            return stack

        yield build


@pytest.fixture(scope="module")
def production(
    tmp_path_factory: pytest.TempPathFactory, servers: Callable[..., dict[str, str]]
) -> Iterator[Callable[..., LauncherStack]]:
    """Start a stack with the settings of production.py; keywords are added to the environment."""
    with ExitStack() as resources:

        def start(**environment: str) -> LauncherStack:
            folder = tmp_path_factory.mktemp("production")
            settings = servers(resources) or {
                "DATABASE_URL": f"sqlite:///{folder / 'logs.sqlite3'}",
                "REDIS_URL": resources.enter_context(Redis()).url,
            }
            return resources.enter_context(LauncherStack(folder, **(PRODUCTION | settings | environment)))

        yield start


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, servers: Callable[..., dict[str, str]]
) -> Iterator[LauncherStack]:
    """One stack for all tests of a module that don't stop it; each test uses its own operations."""
    with (
        ExitStack() as resources,
        LauncherStack(tmp_path_factory.mktemp("stack"), **servers(resources)) as stack,
    ):
        yield stack


@contextmanager
def fresh_database(blocker: DjangoDbBlocker, *, empty: bool) -> Iterator[str]:
    name = f"stack_{uuid4().hex}"
    with blocker.unblock(), connection._nodb_cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        if not empty and PRIVATE_DATABASE in os.environ:
            copy_database(cursor, UNTOUCHED, name)
    try:
        yield urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()
    finally:
        with blocker.unblock(), connection._nodb_cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name}")


@contextmanager
def own_redis_database() -> Iterator[str]:
    """Reserve one of Redis' numbered databases that no other stack uses."""
    for number in range(1, 16):
        url = urlsplit(os.environ["REDIS_URL"])._replace(path=f"/{number}").geturl()
        with redis.Redis.from_url(url) as client:
            if client.set("stack", "taken", nx=True):
                try:
                    yield url
                finally:
                    client.flushdb()
                return
    raise AssertionError("all databases of this Redis are taken")
