"""Verify the ledger every night, and all of it once a week, in a subprocess of the scheduler.

A subprocess, so that no sweep waits for it; a lease, so that only one of several schedulers verifies. An
interrupted run starts again when its lease has expired. VERIFY_ROWS_PER_SECOND_MAX bounds the load.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
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
LEASE_DURATION = timedelta(minutes=2)  # much longer than a page takes; renewed between pages
LEASE_RENEWAL_SECONDS = 10.0
FULL_EVERY = timedelta(days=6, hours=12)  # every seventh night, even if a run ends later than the one before

_process: BaseProcess | None = None
_following: list[Callable[[], object]] = []  # of packages above


def run_afterwards(step: Callable[[], object]) -> None:
    """Have `step` run each night, after the verification and in its subprocess."""
    _following.append(step)


def start_if_due() -> bool:
    """Start a verification if one is due, without waiting for it; return whether one was started."""
    global _process  # noqa: PLW0603 of this process, as its subprocess is
    is_running = _process is not None and _process.is_alive()
    if is_running or not is_due(clock.database_now()) or not _acquire_lease():
        return False
    connection.close()  # a subprocess must not share it
    # A daemon ends with this process.
    _process = multiprocessing.get_context("fork").Process(target=_run_in_subprocess, daemon=True)
    _process.start()
    return True


def is_due(now: datetime) -> bool:
    """Return whether there was a payment at the last scheduled time, and no verification has ended since."""
    scheduled_at = scheduled_before(now)
    first = Payment.objects.order_by("pk").values_list("created_at", flat=True).first()
    if first is None or first > scheduled_at:
        return False
    return not LedgerVerification.objects.filter(ended_at__gte=scheduled_at).exists()


def scheduled_before(now: datetime) -> datetime:
    """Return the last time before `now` when it was VERIFY_AT_HOUR in the bank's time zone."""
    local = now.astimezone(settings.BANK_TIME_ZONE)
    scheduled_at = local.replace(hour=settings.VERIFY_AT_HOUR, minute=0, second=0, microsecond=0)
    return scheduled_at if scheduled_at <= local else scheduled_at - timedelta(days=1)


def scheduled_after(now: datetime) -> datetime:
    return scheduled_before(now) + timedelta(days=1)


def verify() -> None:
    """Verify at a bounded rate, and save the result. Raises django.db.DatabaseError."""
    since = clock.database_now() - FULL_EVERY
    is_full = not LedgerVerification.objects.filter(is_full=True, ended_at__gte=since).exists()
    result = verification.verify_ledger(
        ThrottledProgress(settings.VERIFY_ROWS_PER_SECOND_MAX), is_full=is_full
    )
    verification.save(result)
    saved = result.verification
    fields = {"rows": saved.rows_scanned, "seconds": round(saved.duration.total_seconds(), 1)}
    if saved.drift:
        log.error("ledger drift found", drifts=saved.drifts_found, first=str(result.drifts[0]), **fields)
    else:
        log.info("ledger verified", full=saved.is_full, **fields)


class ThrottledProgress:
    """A Progress that limits the rate by sleeping after each page, and renews the lease."""

    def __init__(self, rows_per_second_max: int) -> None:
        self._rows_per_second_max = rows_per_second_max
        self._started = self._renewed = time.monotonic()
        self._rows = 0

    def __call__(self, _what: str, rows: int) -> None:
        self._rows += rows
        early = self._started + self._rows / self._rows_per_second_max - time.monotonic()
        time.sleep(max(0.0, min(early, LEASE_RENEWAL_SECONDS)))
        if time.monotonic() - self._renewed > LEASE_RENEWAL_SECONDS:
            self._renewed = time.monotonic()
            _set_lease_expiry(clock.database_now() + LEASE_DURATION)


def _run_in_subprocess() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # the inherited handler would wait for the query
    prometheus_multiprocess.set_process_name(f"verification-of-{os.getppid()}")
    try:
        verify()
        for step in _following:
            step()
        _set_lease_expiry(clock.database_now())
    except (DatabaseError, InterfaceError) as exc:
        log.warning("ledger verification failed; retrying", error=repr(exc))
    finally:
        connection.close()


def _acquire_lease() -> bool:
    now = clock.database_now()
    Lease.objects.bulk_create([Lease(name=LEASE, expires_at=now)], ignore_conflicts=True)
    expired = Lease.objects.filter(name=LEASE, expires_at__lte=now)
    return expired.update(expires_at=now + LEASE_DURATION) == 1


def _set_lease_expiry(expires_at: datetime) -> None:
    Lease.objects.filter(name=LEASE).update(expires_at=expires_at)
