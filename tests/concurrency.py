"""Run functions in concurrent database sessions."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import pytest
from django.db import connection

T = TypeVar("T")

requires_row_locks = pytest.mark.skipif(
    connection.vendor == "sqlite", reason="SQLite locks the whole database"
)


def run_concurrently(actions: list[Callable[[], T]]) -> list[T]:
    """Run each action in its own thread and connection, all starting at once; return their results."""
    start = Barrier(len(actions))

    def run(action: Callable[[], T]) -> T:
        try:
            connection.ensure_connection()
            start.wait(timeout=30)
            return action()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(run, actions))
