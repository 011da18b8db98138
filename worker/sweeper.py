"""Sweep every few seconds for work whose message was lost or never sent.

The sweeper runs in beat's process and needs no broker: without one, its subprocesses apply the webhooks. They
are subprocesses because a webhook may kill the process that applies it.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import structlog
from celery import Signature
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, transaction

from core.db import clock
from core.observability import prometheus_multiprocess
from ingest import doorbell, operator_actions, version_corrections
from ingest.models import Webhook
from ledger.models import Organization
from worker import applying, retries, trial_posting

log = structlog.get_logger(__name__)

ISOLATED_AT_ONCE_MAX = 10  # webhooks
OLDEST_SCANNED_MAX = 10_000  # webhooks, to find some of unlocked organizations
SUBPROCESS_SECONDS_MAX = 300.0  # a subprocess that runs longer hangs


def sweep() -> None:
    """Recover and start pending work.

    1. Move dead processes' batches and the oldest stalled webhooks from the common queue to retries.
    2. Fail webhooks whose last attempt died.
    3. Have pending operator actions run.
    4. Enqueue due retries, and ring the doorbell if the common queue is not empty or a correction is due.
    5. Without a broker, do here what could not be sent.
    """
    retries.move_dead_batches_to_retries()
    _isolate_stalled()
    _fail_exhausted()
    if operator_actions.pending_ids() and not doorbell.ring_now(doorbell.OPERATOR_ACTIONS_TASK):
        _run_in_subprocess(partial(operator_actions.run_pending, settings.SWEEP_INTERVAL_SECONDS))
    _run_unsent(retries.enqueue_due())
    is_waiting = Webhook.objects.queued().exists() or version_corrections.due().exists()
    if is_waiting and not doorbell.ring_now() and not _run_in_subprocess(_apply_queue):
        retries.move_dead_batches_to_retries()


def _isolate_stalled() -> None:
    """Move the oldest stalled webhooks to retries: one that kills every worker would stall the queue forever.

    Only a few at a time: in a long backlog old webhooks are normal, and batches shorten it fastest. Locked
    organizations are skipped; single retries would fail too.
    """
    stalled_before = clock.database_now() - timedelta(seconds=settings.STALLED_AFTER_SECONDS)
    stalled = Webhook.objects.queued().filter(received_at__lt=stalled_before)
    candidates = list(stalled.values_list("pk", "payer_inn")[:OLDEST_SCANNED_MAX])
    locked: set[str] = set()
    while True:
        oldest = [(key, inn) for key, inn in candidates if inn not in locked][:ISOLATED_AT_ONCE_MAX]
        newly_locked = _locked({inn for _, inn in oldest})
        if not newly_locked:
            break
        locked |= newly_locked
    retries.move_to_retries(key for key, _ in oldest)


def _fail_exhausted() -> None:
    """Fail webhooks whose last attempt died without an error, but only if a trial posting succeeds.

    The trial runs in a subprocess, because it may kill its process, too.
    """
    if retries.exhausted().exists():
        if _run_in_subprocess(trial_posting.exit_if_deployment_broken):
            retries.fail_exhausted()
        else:
            retries.postpone_exhausted()


def _locked(inns: set[str]) -> set[str]:
    """Return the INNs of those organizations that are locked at this moment."""
    if not connection.features.has_select_for_update:  # SQLite; it would wait for all writes
        return set()
    organizations = Organization.objects.filter(inn__in=inns).values_list("inn", flat=True)
    with transaction.atomic():
        unlocked = set(organizations.select_for_update(skip_locked=True))
        return set(organizations) - unlocked


def _run_unsent(unsent: list[Signature]) -> None:
    """Run retries until the next sweep is due, so that each sweep also serves the common queue.

    Groups run first, because each serves many webhooks.
    """
    until = time.monotonic() + settings.SWEEP_INTERVAL_SECONDS
    while unsent and time.monotonic() < until:
        _run_in_subprocess(unsent.pop().apply)
    retries.release(unsent)


def _run_in_subprocess(function: Callable[[], object]) -> bool:
    """Run `function` in a subprocess; return whether it succeeded."""
    connection.close()  # a subprocess must not share it
    target = partial(_run_as, f"subprocess-of-{os.getpid()}", function)
    process = multiprocessing.get_context("fork").Process(target=target, daemon=True)  # ends with this one
    process.start()
    process.join(SUBPROCESS_SECONDS_MAX)
    if process.exitcode is None:
        process.kill()
        process.join()
    if process.exitcode != 0:
        log.error("sweeper subprocess died", exit_code=process.exitcode)
    return process.exitcode == 0


def _run_as(name: str, function: Callable[[], object]) -> None:
    prometheus_multiprocess.set_process_name(name)
    function()


def _apply_queue() -> None:
    """Apply batches until the queue is empty or the next sweep is due."""
    until = time.monotonic() + settings.SWEEP_INTERVAL_SECONDS
    try:
        while applying.apply_batch(settings.BATCH_SIZE_MAX) and time.monotonic() < until:
            pass
    except applying.BatchFailed as exc:
        if not trial_posting.is_deployment_broken():
            retries.move_to_retries(exc.webhook_ids)
    except (DatabaseError, InterfaceError) as exc:  # says nothing about the webhooks
        log.warning("queue not applied; the next sweep retries", error=repr(exc))
        return
    version_corrections.run_due(until)
