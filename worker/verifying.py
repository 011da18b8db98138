"""Verify the books every night, and all of them once a week, in a child process of the scheduler.

A child, so that no sweep waits for it; a lease, so that of several schedulers one verifies. A run that is cut
off begins anew when its lease has ended. Its load is bounded by VERIFY_ROWS_PER_SECOND_MAX.
"""

import multiprocessing
import os
import signal
import time
from datetime import datetime, timedelta
from multiprocessing.process import BaseProcess

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from ingest import sharing, verifying
from ingest.models import Verification
from ledger.models import Payment
from worker import clock
from worker.models import Lease

log = structlog.get_logger(__name__)

LEASE = "verify"
LEASED_FOR = timedelta(minutes=2)  # much longer than a page takes, in between which it is renewed
RENEWED_EVERY_SECONDS = 10.0
WHOLE_EVERY = timedelta(
    days=6, hours=12
)  # each seventh night, though a run may end later than the one before

_child: BaseProcess | None = None


def start_if_due() -> bool:
    """Start a verification if one is due, and wait for nothing; returns whether it did."""
    global _child  # noqa: PLW0603 of this process, as the child is
    if (_child is not None and _child.is_alive()) or not is_due(clock.now()) or not _take_lease():
        return False
    connection.close()  # a child must not share it
    _child = multiprocessing.get_context("fork").Process(target=_in_child, daemon=True)  # ends with us
    _child.start()
    return True


def is_due(now: datetime) -> bool:
    """Whether there was something to verify at the last scheduled moment, and it wasn't verified since."""
    moment = scheduled_before(now)
    first = Payment.objects.order_by("pk").values_list("created_at", flat=True).first()
    if first is None or first > moment:
        return False
    return not Verification.objects.filter(ended_at__gte=moment).exists()


def scheduled_before(now: datetime) -> datetime:
    """The last moment before `now` at which it was VERIFY_AT_HOUR in the bank's time zone."""
    local = now.astimezone(settings.BANK_TIME_ZONE)
    moment = local.replace(hour=settings.VERIFY_AT_HOUR, minute=0, second=0, microsecond=0)
    return moment if moment <= local else moment - timedelta(days=1)


def scheduled_after(now: datetime) -> datetime:
    return scheduled_before(now) + timedelta(days=1)


def verify() -> None:
    """Verify at a bounded speed, and keep the result. Raises django.db.DatabaseError."""
    since = clock.now() - WHOLE_EVERY
    is_whole = not Verification.objects.filter(is_whole=True, ended_at__gte=since).exists()
    result = verifying.verify_books(Pace(settings.VERIFY_ROWS_PER_SECOND_MAX), is_whole=is_whole)
    verifying.keep(result)
    found = result.verification
    figures = {"rows": found.rows_looked_at, "seconds": round(found.took.total_seconds(), 1)}
    if found.drift:
        log.error("books have drift", drifts=found.drifts_found, first=str(result.drifts[0]), **figures)
    else:
        log.info("books are right", whole=found.is_whole, **figures)


class Pace:
    """A Progress that sleeps after a page for as long as it came too early, and renews the lease."""

    def __init__(self, rows_per_second_max: int) -> None:
        self._rows_per_second_max = rows_per_second_max
        self._begun = self._renewed = time.monotonic()
        self._rows = 0

    def __call__(self, _what: str, rows: int) -> None:
        self._rows += rows
        early = self._begun + self._rows / self._rows_per_second_max - time.monotonic()
        time.sleep(max(0.0, min(early, RENEWED_EVERY_SECONDS)))
        if time.monotonic() - self._renewed > RENEWED_EVERY_SECONDS:
            self._renewed = time.monotonic()
            _lease_until(clock.now() + LEASED_FOR)


def _in_child() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # the scheduler's own would sign it off
    sharing.count_as(f"verification-of-{os.getppid()}")
    try:
        verify()
        _lease_until(clock.now())
    except (DatabaseError, InterfaceError) as exc:
        log.warning("books could not be verified; it is tried again", error=repr(exc))
    finally:
        connection.close()


def _take_lease() -> bool:
    now = clock.now()
    Lease.objects.bulk_create([Lease(name=LEASE, until=now)], ignore_conflicts=True)
    return Lease.objects.filter(name=LEASE, until__lte=now).update(until=now + LEASED_FOR) == 1


def _lease_until(moment: datetime) -> None:
    Lease.objects.filter(name=LEASE).update(until=moment)
