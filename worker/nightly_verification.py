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

from core.db import clock
from core.observability import prometheus_multiprocess
from ingest import verification
from ingest.models import LedgerVerification
from ledger.models import Payment
from worker.models import Lease

log = structlog.get_logger(__name__)

LEASE = "verify"
LEASE_DURATION = timedelta(minutes=2)  # much longer than a page takes, in between which it is renewed
LEASE_RENEWAL_SECONDS = 10.0
FULL_EVERY = timedelta(days=6, hours=12)  # each seventh night, though a run may end later than the one before

_child: BaseProcess | None = None


def start_if_due() -> bool:
    """Start a verification if one is due, and wait for nothing; returns whether it did."""
    global _child  # noqa: PLW0603 of this process, as the child is
    if (_child is not None and _child.is_alive()) or not is_due(clock.database_now()) or not _acquire_lease():
        return False
    connection.close()  # a child must not share it
    _child = multiprocessing.get_context("fork").Process(
        target=_run_in_subprocess, daemon=True
    )  # ends with us
    _child.start()
    return True


def is_due(now: datetime) -> bool:
    """Whether there was something to verify at the last scheduled moment, and it wasn't verified since."""
    moment = scheduled_before(now)
    first = Payment.objects.order_by("pk").values_list("created_at", flat=True).first()
    if first is None or first > moment:
        return False
    return not LedgerVerification.objects.filter(ended_at__gte=moment).exists()


def scheduled_before(now: datetime) -> datetime:
    """The last moment before `now` at which it was VERIFY_AT_HOUR in the bank's time zone."""
    local = now.astimezone(settings.BANK_TIME_ZONE)
    moment = local.replace(hour=settings.VERIFY_AT_HOUR, minute=0, second=0, microsecond=0)
    return moment if moment <= local else moment - timedelta(days=1)


def scheduled_after(now: datetime) -> datetime:
    return scheduled_before(now) + timedelta(days=1)


def verify() -> None:
    """Verify at a bounded speed, and keep the result. Raises django.db.DatabaseError."""
    since = clock.database_now() - FULL_EVERY
    is_full = not LedgerVerification.objects.filter(is_full=True, ended_at__gte=since).exists()
    result = verification.verify_ledger(
        ThrottledProgress(settings.VERIFY_ROWS_PER_SECOND_MAX), is_full=is_full
    )
    verification.save(result)
    found = result.verification
    figures = {"rows": found.rows_scanned, "seconds": round(found.duration.total_seconds(), 1)}
    if found.drift:
        log.error("ledger drift found", drifts=found.drifts_found, first=str(result.drifts[0]), **figures)
    else:
        log.info("ledger verified", whole=found.is_full, **figures)


class ThrottledProgress:
    """A Progress that sleeps after a page for as long as it came too early, and renews the lease."""

    def __init__(self, rows_per_second_max: int) -> None:
        self._rows_per_second_max = rows_per_second_max
        self._begun = self._renewed = time.monotonic()
        self._rows = 0

    def __call__(self, _what: str, rows: int) -> None:
        self._rows += rows
        early = self._begun + self._rows / self._rows_per_second_max - time.monotonic()
        time.sleep(max(0.0, min(early, LEASE_RENEWAL_SECONDS)))
        if time.monotonic() - self._renewed > LEASE_RENEWAL_SECONDS:
            self._renewed = time.monotonic()
            _set_lease_expiry(clock.database_now() + LEASE_DURATION)


def _run_in_subprocess() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # the scheduler's own would sign it off
    prometheus_multiprocess.set_process_name(f"verification-of-{os.getppid()}")
    try:
        verify()
        _set_lease_expiry(clock.database_now())
    except (DatabaseError, InterfaceError) as exc:
        log.warning("ledger verification failed; retrying", error=repr(exc))
    finally:
        connection.close()


def _acquire_lease() -> bool:
    now = clock.database_now()
    Lease.objects.bulk_create([Lease(name=LEASE, until=now)], ignore_conflicts=True)
    return Lease.objects.filter(name=LEASE, until__lte=now).update(until=now + LEASE_DURATION) == 1


def _set_lease_expiry(moment: datetime) -> None:
    Lease.objects.filter(name=LEASE).update(until=moment)
