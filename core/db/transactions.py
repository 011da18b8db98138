"""Retries of database transactions after transient errors."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from django.db import DatabaseError, InterfaceError, OperationalError, connection

log = structlog.get_logger(__name__)
T = TypeVar("T")

TRIES_MAX = 5
BACKOFF_SECONDS = 0.05  # before the first retry; doubles, with jitter

LOCK_WAIT_TIMEOUT = 1205
DEADLOCK = 1213
RECORD_CHANGED = 1020  # MariaDB ≥ 11.6: the record has changed since the last read
CERTIFICATION_FAILED = 3101  # Group Replication: a transaction on another member came first

_NOT_NOW = {
    1030,  # storage engine error, such as a full disk for a temporary table
    1317,  # the query was killed
    1969,  # MariaDB: statement timeout
    3024,  # MySQL: statement timeout
    RECORD_CHANGED,
    1021,  # disk full
    1026,  # a file write failed, such as the binary log at COMMIT
    1180,  # error during COMMIT
    3100,  # Group Replication, at COMMIT
    CERTIFICATION_FAILED,
    1114,  # table full: InnoDB's error for a full disk
    1203,  # too many connections of this user
    LOCK_WAIT_TIMEOUT,
    DEADLOCK,
    1226,  # a limit of this user is reached
    1290,  # the server is read-only, as during a failover
    1836,  # likewise
}
_CONNECTION_LOST = {
    1047,  # Galera's node is not ready
    1158,  # network errors and timeouts, to 1161
    1159,
    1160,
    1161,
    1040,  # too many connections
    1053,  # server shutdown in progress
    1927,  # connection was killed
    2002,  # can't connect through the socket
    2003,  # can't connect over TCP
    2005,  # unknown host name, as while its container starts
    2006,  # server has gone away
    2013,  # lost connection during query
    2055,  # lost connection, with the system's error
    4031,  # disconnected because of inactivity
}


def is_transient(exc: BaseException) -> bool:
    """Return whether a retry of the transaction can succeed, so that its content is not the cause."""
    if isinstance(exc, InterfaceError):
        return True
    if not isinstance(exc, OperationalError) or not exc.args:
        return False
    if connection.vendor == "sqlite":
        return any(words in str(exc) for words in ("locked", "busy", "is full", "disk I/O error"))
    return exc.args[0] in _NOT_NOW | _CONNECTION_LOST


def was_rolled_back(exc: BaseException) -> bool:
    """Return whether the server rolled the transaction back for another one: it can run again at once."""
    return (
        connection.vendor != "sqlite"
        and isinstance(exc, OperationalError)
        and exc.args[:1] in {(DEADLOCK,), (RECORD_CHANGED,), (CERTIFICATION_FAILED,)}
    )


def run_with_retries(transaction: Callable[[], T], tries_max: int = TRIES_MAX) -> T:
    """Call `transaction` at most `tries_max` times, with exponential backoff after transient errors.

    `transaction` opens and closes its own atomic block, and must be idempotent: after a lost connection it
    is unknown whether the commit succeeded. Inside another atomic block it is called once, because only that
    whole block could be retried. Raise the last DatabaseError or InterfaceError.
    """
    for tries in range(1, tries_max + 1):
        try:
            return transaction()
        except (DatabaseError, InterfaceError) as exc:
            if connection.in_atomic_block:
                raise
            connection.close()  # a new one costs a millisecond, a broken one the next transaction
            if tries == tries_max or not is_transient(exc):
                raise
            log.info("transaction retried", tries=tries, error=repr(exc))
            time.sleep(BACKOFF_SECONDS * 2**tries * random.uniform(0.5, 1.0))
    raise AssertionError("unreachable")
