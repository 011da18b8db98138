"""Whether a database connection still works is asked once a second at most, and whenever there is a doubt.

With CONN_HEALTH_CHECKS Django asks in every request: a second round trip for the door, which has one to make.
"""

import time
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

TRUSTED_SECONDS = 1.0  # shorter than any time for which a server keeps an idle connection


def ping_seldom() -> None:
    """From now on, for each connection that this process makes."""
    connection_created.connect(_ping_seldom)


def _ping_seldom(connection: BaseDatabaseWrapper, **_: Any) -> None:
    ping = type(connection).is_usable
    worked_at = time.monotonic()

    def is_usable() -> bool:
        nonlocal worked_at
        if connection.errors_occurred or time.monotonic() - worked_at > TRUSTED_SECONDS:
            if not ping(connection):
                return False
            worked_at = time.monotonic()
        return True

    connection.is_usable = is_usable  # type: ignore[method-assign]
