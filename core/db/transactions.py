"""Running a database transaction again when the server says so."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from django.db import DatabaseError, InterfaceError, OperationalError, connection

log = structlog.get_logger(__name__)
T = TypeVar("T")

TRIES_MAX = 5
BACKOFF_SECONDS = 0.05  # before the second try; doubles, with jitter

LOCK_WAIT_TIMEOUT = 1205

_NOT_NOW = {
    1030,  # an engine's error, such as a full disk under a temporary table
    1317,  # somebody killed the query
    1969,  # MariaDB: a time limit on statements
    3024,  # MySQL's
    1020,  # MariaDB ≥ 11.6: record has changed since last read
    1021,  # disk full
    1026,  # writing a file failed, such as the binary log at COMMIT
    1180,  # error during COMMIT
    3100,  # Group Replication, at COMMIT
    3101,  # Group Replication rolled it back in certification
    1114,  # table full, which is how InnoDB says it
    1203,  # too many connections of this user
    LOCK_WAIT_TIMEOUT,
    1213,  # deadlock
    1226,  # a limit of this user is reached
    1290,  # the server is read-only, as in a failover
    1836,  # likewise
}
_CONNECTION_LOST = {
    1047,  # Galera's node is not ready
    1158,  # reading, writing or waiting on the network, to 1161
    1159,
    1160,
    1161,
    1040,  # too many connections
    1053,  # server shutdown in progress
    1927,  # connection was killed
    2002,  # can't connect through the socket
    2003,  # can't connect over TCP
    2005,  # the host's name is not known, as while its container starts
    2006,  # server has gone away
    2013,  # lost connection during query
    2055,  # lost connection, with the system's error
    4031,  # disconnected because of inactivity
}


def is_transient(fault: BaseException) -> bool:
    """Whether the same transaction can succeed later, and the fault says nothing about its content."""
    if isinstance(fault, InterfaceError):
        return True
    if not isinstance(fault, OperationalError) or not fault.args:
        return False
    if connection.vendor == "sqlite":
        return any(words in str(fault) for words in ("locked", "busy", "is full", "disk I/O error"))
    return fault.args[0] in _NOT_NOW | _CONNECTION_LOST


def run_with_retries(transaction: Callable[[], T], tries_max: int = TRIES_MAX) -> T:
    """Call `transaction` until it succeeds, at most `tries_max` times while its faults are transient.

    `transaction` opens and closes its own atomic block. After a lost connection nobody knows
    whether it was committed; it must look at the rows again and find out. Inside another atomic block it is
    called once, because only the whole of that block can be run again.
    """
    for tries in range(1, tries_max + 1):
        try:
            return transaction()
        except (DatabaseError, InterfaceError) as fault:
            if connection.in_atomic_block:
                raise
            connection.close()  # a new one costs a millisecond, a half-dead one costs the next transaction
            if tries == tries_max or not is_transient(fault):
                raise
            log.info("transaction retried", tries=tries, error=repr(fault))
            time.sleep(BACKOFF_SECONDS * 2**tries * random.uniform(0.5, 1.0))
    raise AssertionError("unreachable")
