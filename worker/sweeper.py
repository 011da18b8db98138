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

from ingest import acts, doorbell, sharing
from ingest.models import Webhook
from ledger.models import Organization
from worker import acting, applying, attempts, clock

log = structlog.get_logger(__name__)

STALLED_AT_ONCE_MAX = 10  # webhooks
LOOKED_AT_MAX = 10_000  # webhooks, for some that wait for nobody
CHILD_SECONDS_MAX = 300.0  # whoever takes longer hangs


def sweep() -> None:
    """1. Take out of the common queue what processes died with, and the oldest stalled webhooks.
    2. Fail those whose last attempt died.
    3. Have the acts of persons carried out that nobody is at.
    4. Send out the attempts that are due, and ring if the common queue isn't empty.
    5. Without a broker, do here what could not be sent.
    """
    attempts.take_dead_apart()
    _set_stalled_apart()
    attempts.give_up_on_exhausted()
    if acts.unfinished() and not doorbell.ring_now(doorbell.ACTS_TASK):
        _in_a_child(partial(acting.carry_out_for, settings.SWEEP_EVERY_SECONDS))
    _make(attempts.send_due())
    if Webhook.objects.queued().exists() and not doorbell.ring_now() and not _in_a_child(_apply_queue):
        attempts.take_dead_apart()


def _set_stalled_apart() -> None:
    """A webhook that kills every worker with its batch would stall the queue behind it for ever.

    Only a few of the oldest at a time: behind a long backlog old webhooks are no sign of trouble,
    and batches are how it gets shorter. Webhooks of an organization that somebody holds wait for him, and
    would only be tried in vain one by one.
    """
    long_ago = clock.now() - timedelta(seconds=settings.STALLED_AFTER_SECONDS)
    stalled = Webhook.objects.queued().filter(received_at__lt=long_ago)
    seen = list(stalled.values_list("pk", "payer_inn")[:LOOKED_AT_MAX])
    held: set[str] = set()
    while True:
        oldest = [(key, inn) for key, inn in seen if inn not in held][:STALLED_AT_ONCE_MAX]
        found_held = _held({inn for _, inn in oldest})
        if not found_held:
            break
        held |= found_held
    attempts.take_apart(key for key, _ in oldest)


def _held(inns: set[str]) -> set[str]:
    """Those of the organizations that somebody holds at this moment."""
    organizations = Organization.objects.filter(inn__in=inns).values_list("inn", flat=True)
    with transaction.atomic():
        free = set(organizations.select_for_update(skip_locked=True))
        return set(organizations) - free


def _make(unsent: list[Signature]) -> None:
    """Make attempts until the next sweep is due: the common queue has its turn in each. Those that are
    shared come first, because each of them serves many.
    """
    until = time.monotonic() + settings.SWEEP_EVERY_SECONDS
    while unsent and time.monotonic() < until:
        _in_a_child(unsent.pop().apply)
    attempts.give_back(unsent)


def _in_a_child(act: Callable[[], object]) -> bool:
    """Run it in a process of its own, as no worker hears of it; whether that came to a good end."""
    connection.close()  # a child must not share it
    target = partial(_counting, f"child-of-{os.getpid()}", act)
    child = multiprocessing.get_context("fork").Process(target=target, daemon=True)  # ends with us
    child.start()
    child.join(CHILD_SECONDS_MAX)
    if child.exitcode is None:
        child.kill()
        child.join()
    if child.exitcode != 0:
        log.error("the sweeper's child died", exit_code=child.exitcode)
    return child.exitcode == 0


def _counting(name: str, act: Callable[[], object]) -> None:
    sharing.count_as(name)
    act()


def _apply_queue() -> None:
    """Until it is empty, or the next sweep is due."""
    until = time.monotonic() + settings.SWEEP_EVERY_SECONDS
    try:
        while applying.apply_batch(settings.BATCH_WEBHOOKS_MAX) and time.monotonic() < until:
            pass
    except applying.BatchFailed as failed:
        attempts.take_apart(failed.webhook_ids)
    except (DatabaseError, InterfaceError) as fault:  # says nothing about the webhooks
        log.warning("the next sweep tries again", error=repr(fault))
