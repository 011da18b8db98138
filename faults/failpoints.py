# ruff: noqa: SLF001 a window between two steps can only be opened from the inside
"""Fault points at the windows of our own code, poison, and planted bugs, inside the production processes.

Nothing of this is in the production code: faults/settings.py has Django load it, and it wraps the functions
on both sides of a window. The nemesis arms a point by a file in FAULTS_FOLDER; whoever comes by first takes
the file away and acts, so each file strikes once, in one process.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from celery import current_app
from django.db import connection, transaction
from django.db.models import QuerySet

from ingest import doorbell, inbox
from ingest.models import Webhook
from ledger import posting
from ledger.exceptions import MissingOrganizations
from ledger.models import Organization
from ledger.terms import PaymentTerms
from worker import applying, retries

FOLDER = Path(os.environ["FAULTS_FOLDER"])
POISON = "POISON-"
REPAIRED = FOLDER / "repaired"
Claim = Callable[[], applying.Claimed]


class InjectedError(Exception):
    """What a fault point raises."""


def _raise() -> None:
    raise InjectedError("as the nemesis wished")


ACTIONS: dict[str, Callable[[], object]] = {
    "raise": _raise,
    "exit": lambda: os._exit(1),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}
# The window, the function at its edge, and whether it opens before or after the call.
FAILPOINTS: list[tuple[str, Any, str, str]] = [
    ("stored", inbox, "store", "after"),  # committed, not rung, not answered
    ("rung", doorbell, "ring", "after"),  # not answered
    ("locked", applying, "lock_free", "after"),
    ("claimed", applying, "_lock", "after"),
    ("marked", applying, "_mark_applied", "after"),  # not posted
    ("logged", posting, "_bring_balances_to_newest_line", "before"),
    ("posted", applying, "post", "after"),  # not committed
    ("applied", applying, "apply_batch", "after"),  # committed, the message not acknowledged
    ("begun", retries, "begin_attempts", "after"),  # the attempt is counted
    ("applied-alone", applying, "apply_ids", "after"),
]


def install() -> None:
    for window, module, name, side in FAILPOINTS:
        _wrap(
            module, name, before=window if side == "before" else "", after=window if side == "after" else ""
        )
    _poison()
    BUG_INSTALLERS.get(os.environ["FAULTS_SEEDED_BUG"], lambda: None)()


def _wrap(module: Any, name: str, *, before: str, after: str) -> None:
    wrapped = getattr(module, name)

    def with_points(*arguments: Any, **keywords: Any) -> Any:
        _pass(before)
        result = wrapped(*arguments, **keywords)
        _pass(after)
        return result

    setattr(module, name, with_points)


def _pass(window: str) -> None:
    for name, action in ACTIONS.items():
        if window and _taken(FOLDER / f"{window}.{name}"):
            action()


def _taken(file: Path) -> bool:
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True


def _poison() -> None:
    post = applying.post

    def post_unless_poisoned(told: QuerySet[Any], organizations: Mapping[str, int]) -> None:
        poison = told.filter(document_number__startswith=POISON)
        if poison and not REPAIRED.exists():
            ACTIONS["exit" if poison.filter(document_number__contains="KILL") else "raise"]()
        post(told, organizations)

    applying.post = post_unless_poisoned


# Planted bugs: the checker must turn red on each


def _no_organization_lock() -> None:
    vars(Organization.objects)["select_for_update"] = lambda **_: Organization.objects.all()
    bring = posting._update_balances

    def walk_past_others(webhooks_max: int, _last: str | None) -> Iterator[tuple[str, list[int]]]:
        # Otherwise a foreign key's lock on the organization, or the webhooks' own, would stand in for it.
        connection.disable_constraint_checking()
        free = Webhook.objects.queued().select_for_update(skip_locked=True)
        rows = sorted(free.values_list("payer_inn", "pk")[:webhooks_max])
        for inn, its in groupby(rows, itemgetter(0)):
            yield inn, [key for _, key in its]

    def dawdle_and_bring(organization_ids: Collection[int]) -> None:
        time.sleep(0.05)  # two at once are rare on a fast machine, and certain with this
        bring(organization_ids)

    applying._scan, posting._update_balances = walk_past_others, dawdle_and_bring


def _acknowledge_before_commit() -> None:
    store = inbox.store

    def store_later(terms: PaymentTerms, *rest: Any) -> inbox.StoreResult:
        if Webhook.objects.filter(operation_id=terms.operation_id).exists():
            return store(terms, *rest)
        threading.Timer(0.2, store, [terms, *rest]).start()
        return inbox.StoreResult.CREATED

    inbox.store = store_later


def _mark_apart() -> None:
    def claim_and_mark(claim: Claim) -> list[int]:
        with transaction.atomic():
            _, webhook_ids = claim()
            if webhook_ids:
                applying._mark_applied(webhook_ids)
        return webhook_ids

    def apply_in_two_transactions(claim: Claim) -> list[int]:
        try:
            webhook_ids = claim_and_mark(claim)
        except MissingOrganizations as missing:
            applying.open_organizations(missing.inns)
            return apply_in_two_transactions(claim)
        except applying.ClaimLost:
            return apply_in_two_transactions(claim)
        told = Webhook.objects.filter(id__in=webhook_ids).with_payment_terms()
        with transaction.atomic():
            inns = set(told.values_list("inn", flat=True))
            list(Organization.objects.select_for_update().filter(inn__in=inns).order_by("id"))
            if inns:
                applying.post(told, applying.lock_free(inns))
        return webhook_ids

    applying._apply = apply_in_two_transactions


def _doorbell_blocks() -> None:
    doorbell.ring = lambda: current_app.send_task(doorbell.APPLY_TASK, ignore_result=True)


def _retry_posts_again() -> None:
    apply = applying._apply

    def apply_again_now_and_then(claim: Claim) -> list[int]:
        webhook_ids = apply(claim)
        if webhook_ids and random.random() < 0.1:
            told = Webhook.objects.filter(id__in=webhook_ids).with_payment_terms()
            with transaction.atomic():
                organizations = applying.lock_free(set(told.values_list("inn", flat=True)))
                if organizations:
                    applying.post(told.filter(inn__in=organizations), organizations)
        return webhook_ids

    applying._apply = apply_again_now_and_then


BUG_INSTALLERS: dict[str, Callable[[], None]] = {
    "no_organization_lock": _no_organization_lock,
    "acknowledge_before_commit": _acknowledge_before_commit,
    "mark_apart": _mark_apart,
    "doorbell_blocks": _doorbell_blocks,
    "retry_posts_again": _retry_posts_again,
    "no_organization_lock_nor_seq_key": _no_organization_lock,
}
