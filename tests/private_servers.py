"""A pytest plugin that gives each worker of a run its own MariaDB or MySQL, migrated, and its own Redis.

`python -m tests mariadb` loads it. Tests may then set global variables, kill sessions and consume queues
without disturbing the tests of another worker.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.harness.servers import Redis
from tests.harness.templates import SERVERS, share, template

PRIVATE_DATABASE = "PRIVATE_DATABASE"  # in the environment: mariadb or mysql
_servers = ExitStack()


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """Start the servers before the settings are read: not in a process that only distributes the tests."""
    share()
    runs_tests = "PYTEST_XDIST_WORKER" in os.environ or not early_config.known_args_namespace.numprocesses
    if runs_tests and PRIVATE_DATABASE in os.environ:
        kind = os.environ[PRIVATE_DATABASE]
        database = _servers.enter_context(SERVERS[kind](data=template(kind)))
        broker = _servers.enter_context(Redis())
        os.environ |= {"DATABASE_URL": database.url, "REDIS_URL": broker.url}
    return (yield)


def pytest_unconfigure() -> None:
    _servers.close()
