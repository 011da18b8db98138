"""The module in which Django looks for the backend's DatabaseWrapper."""

import random
import sqlite3
import time
from typing import Any

from django.db.backends.sqlite3 import base

RETRY_SECONDS = (0.001, 0.003)


class DatabaseWrapper(base.DatabaseWrapper):
    """SQLite whose write lock is soon passed on.

    SQLite itself sleeps for up to 100 ms between two tries. While others commit back to back, the lock is
    free for a millisecond at a time, and a process that tries so rarely can miss it for its whole timeout,
    though no transaction takes a second. Trying every 2 ms finds it.
    """

    lock_wait_seconds = 0.0  # 0: a locked database is an error at once

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(
            conn_params
        )  # with SQLite's waiting, as for PRAGMA journal_mode
        self.lock_wait_seconds = float(conn_params["timeout"])
        connection.execute("PRAGMA busy_timeout = 0")
        return connection

    def create_cursor(self, name: str | None = None) -> Any:
        cursor = self.connection.cursor(factory=_Cursor)
        cursor.wrapper = self
        return cursor


class _Cursor(base.SQLiteCursorWrapper):
    wrapper: DatabaseWrapper

    def execute(self, query: str, params: Any = None) -> Any:
        """Execute; outside a transaction, and to begin one, wait for the lock up to lock_wait_seconds."""
        deadline = time.monotonic() + self.wrapper.lock_wait_seconds
        while True:
            try:
                return super().execute(query, params)
            except sqlite3.OperationalError as exc:
                is_locked = exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not is_locked or self.connection.in_transaction or time.monotonic() >= deadline:
                    raise
            time.sleep(random.uniform(*RETRY_SECONDS))
