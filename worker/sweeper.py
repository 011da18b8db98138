"""Looks every few seconds for what nobody rang for, so that nothing waits for a lost message.

It runs in beat's process and needs no broker: where that takes no message, children of the sweeper apply
the webhooks themselves. Children, because some webhook may kill whoever applies it.
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
from ingest import doorbell, operator_actions
from ingest.models import Webhook
from ledger.models import Organization
from worker import acting, applying, retries, trial_posting

log = structlog.get_logger(__name__)

ISOLATED_AT_ONCE_MAX = 10  # webhooks
OLDEST_SCANNED_MAX = 10_000  # webhooks, for some that wait for nobody
SUBPROCESS_SECONDS_MAX = 300.0  # whoever takes longer hangs


def sweep() -> None:
    """1. Take out of the common queue what processes died with, and the oldest stalled webhooks.
    2. Fail those whose last attempt died.
    3. Have the acts of persons carried out that nobody is at.
    4. Send out the attempts that are due, and ring if the common queue isn't empty.
    5. Without a broker, do here what could not be sent.
    """
    retries.move_dead_batches_to_retries()
    _isolate_stalled()
    _fail_exhausted()
    if operator_actions.pending_ids() and not doorbell.ring_now(doorbell.OPERATOR_ACTIONS_TASK):
        _run_in_subprocess(partial(acting.run_pending, settings.SWEEP_INTERVAL_SECONDS))
    _run_unsent(retries.enqueue_due())
    if Webhook.objects.queued().exists() and not doorbell.ring_now() and not _run_in_subprocess(_apply_queue):
        retries.move_dead_batches_to_retries()


def _isolate_stalled() -> None:
    """A webhook that kills every worker with its batch would stall the queue behind it for ever.

    Only a few of the oldest at a time: behind a long backlog old webhooks are no sign of trouble,
    and batches are how it gets shorter. Webhooks of an organization that somebody holds wait for him, and
    would only be tried in vain one by one.
    """
    long_ago = clock.database_now() - timedelta(seconds=settings.STALLED_AFTER_SECONDS)
    stalled = Webhook.objects.queued().filter(received_at__lt=long_ago)
    seen = list(stalled.values_list("pk", "payer_inn")[:OLDEST_SCANNED_MAX])
    held: set[str] = set()
    while True:
        oldest = [(key, inn) for key, inn in seen if inn not in held][:ISOLATED_AT_ONCE_MAX]
        found_held = _locked({inn for _, inn in oldest})
        if not found_held:
            break
        held |= found_held
    retries.move_to_retries(key for key, _ in oldest)


def _fail_exhausted() -> None:
    """A process that ended in an attempt said nothing: fail its webhook only if a trial posting succeeds.

    The trial runs in a child, because it may end its process, too.
    """
    if retries.exhausted().exists():
        if _run_in_subprocess(trial_posting.exit_if_deployment_broken):
            retries.fail_exhausted()
        else:
            retries.postpone_exhausted()


def _locked(inns: set[str]) -> set[str]:
    """Those of the organizations that somebody holds at this moment."""
    organizations = Organization.objects.filter(inn__in=inns).values_list("inn", flat=True)
    with transaction.atomic():
        free = set(organizations.select_for_update(skip_locked=True))
        return set(organizations) - free


def _run_unsent(unsent: list[Signature]) -> None:
    """Make attempts until the next sweep is due: the common queue has its turn in each. Those that are
    shared come first, because each of them serves many.
    """
    until = time.monotonic() + settings.SWEEP_INTERVAL_SECONDS
    while unsent and time.monotonic() < until:
        _run_in_subprocess(unsent.pop().apply)
    retries.release(unsent)


def _run_in_subprocess(action: Callable[[], object]) -> bool:
    """Run it in a process of its own, as no worker hears of it; whether that came to a good end."""
    connection.close()  # a child must not share it
    target = partial(_run_as, f"child-of-{os.getpid()}", action)
    child = multiprocessing.get_context("fork").Process(target=target, daemon=True)  # ends with us
    child.start()
    child.join(SUBPROCESS_SECONDS_MAX)
    if child.exitcode is None:
        child.kill()
        child.join()
    if child.exitcode != 0:
        log.error("sweeper subprocess died", exit_code=child.exitcode)
    return child.exitcode == 0


def _run_as(name: str, action: Callable[[], object]) -> None:
    prometheus_multiprocess.set_process_name(name)
    action()


def _apply_queue() -> None:
    """Until it is empty, or the next sweep is due."""
    until = time.monotonic() + settings.SWEEP_INTERVAL_SECONDS
    try:
        while applying.apply_batch(settings.BATCH_SIZE_MAX) and time.monotonic() < until:
            pass
    except applying.BatchFailed as failed:
        if not trial_posting.is_deployment_broken():
            retries.move_to_retries(failed.webhook_ids)
    except (DatabaseError, InterfaceError) as fault:  # says nothing about the webhooks
        log.warning("sweep failed; the next sweep retries", error=repr(fault))
