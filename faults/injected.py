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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from celery import current_app
from django.db import transaction

from ingest import doorbell, inbox
from ingest.models import Webhook
from ledger import posting
from ledger.models import Organization
from ledger.terms import PaymentTerms
from worker import applying, attempts, transactions

FOLDER = Path(os.environ["FAULTS_FOLDER"])
POISON = "POISON-"
REPAIRED = FOLDER / "repaired"


class Injected(Exception):
    """What a fault point raises."""


def _raise() -> None:
    raise Injected("as the nemesis wished")


ACTS: dict[str, Callable[[], object]] = {
    "raise": _raise,
    "exit": lambda: os._exit(1),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}
# The window, the function at its edge, and whether it opens before or after the call.
POINTS: list[tuple[str, Any, str, str]] = [
    ("stored", inbox, "store", "after"),  # committed, not rung, not answered
    ("rung", doorbell, "ring", "after"),  # not answered
    ("claimed", applying, "post", "before"),
    ("locked", posting, "_lock_organizations", "after"),
    ("logged", posting, "_bring_balances_to_newest_line", "before"),
    ("posted", applying, "post", "after"),  # not marked
    ("marked", applying, "_mark", "after"),  # not committed
    ("applied", applying, "apply_batch", "after"),  # committed, the message not acknowledged
    ("begun", attempts, "begin_all", "after"),  # the attempt is counted
    ("applied-alone", applying, "apply_these", "after"),
]


def install() -> None:
    for window, module, name, side in POINTS:
        _wrap(
            module, name, before=window if side == "before" else "", after=window if side == "after" else ""
        )
    _poison()
    PLANTS.get(os.environ["FAULTS_PLANT"], lambda: None)()


def _wrap(module: Any, name: str, *, before: str, after: str) -> None:
    wrapped = getattr(module, name)

    def with_points(*arguments: Any, **keywords: Any) -> Any:
        _pass(before)
        result = wrapped(*arguments, **keywords)
        _pass(after)
        return result

    setattr(module, name, with_points)


def _pass(window: str) -> None:
    for name, act in ACTS.items():
        if window and _taken(FOLDER / f"{window}.{name}"):
            act()


def _taken(file: Path) -> bool:
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True


def _poison() -> None:
    post = applying.post

    def post_unless_poisoned(batch: Sequence[PaymentTerms], **keywords: Any) -> list[posting.Outcome]:
        poison = [terms.document_number for terms in batch if terms.document_number.startswith(POISON)]
        if poison and not REPAIRED.exists():
            ACTS["exit" if any("KILL" in number for number in poison) else "raise"]()
        return post(batch, **keywords)

    applying.post = post_unless_poisoned


# Planted bugs: the checker must turn red on each


def _no_organization_lock() -> None:
    vars(Organization.objects)["select_for_update"] = lambda **_: Organization.objects.all()
    lock = posting._lock_organizations

    def read_and_dawdle(*arguments: Any, **keywords: Any) -> Any:
        organizations = lock(*arguments, **keywords)
        time.sleep(0.05)  # two at once are rare on a fast machine, and certain with this
        return organizations

    posting._lock_organizations = read_and_dawdle


def _acknowledge_before_commit() -> None:
    store = inbox.store

    def store_later(terms: PaymentTerms, body: bytes) -> inbox.Stored:
        if Webhook.objects.filter(operation_id=terms.operation_id).exists():
            return store(terms, body)
        threading.Timer(0.2, store, [terms, body]).start()
        return inbox.Stored.NEW

    inbox.store = store_later


def _mark_apart() -> None:
    def apply_in_two_transactions(claimable: Any, webhooks_max: int) -> list[Webhook]:
        with transaction.atomic():
            webhooks = list(claimable.select_for_update(skip_locked=True)[:webhooks_max])
            applying._mark(webhooks, [posting.Outcome.CREATED] * len(webhooks))
        posting.open_organizations({webhook.payer_inn for webhook in webhooks})
        with transaction.atomic():
            applying.post([webhook.terms for webhook in webhooks])
        return webhooks

    applying._apply = apply_in_two_transactions


def _doorbell_blocks() -> None:
    doorbell.ring = lambda: current_app.send_task(doorbell.TASK, ignore_result=True)


def _retry_posts_again() -> None:
    posting._posted = lambda operation_ids: {}
    run = transactions.run

    def run_again_now_and_then(act: Callable[[], Any]) -> Any:
        done = run(act)
        if done and random.random() < 0.1:
            with transaction.atomic():
                applying.post([webhook.terms for webhook in done])
        return done

    transactions.run = run_again_now_and_then


PLANTS: dict[str, Callable[[], None]] = {
    "no_organization_lock": _no_organization_lock,
    "acknowledge_before_commit": _acknowledge_before_commit,
    "mark_apart": _mark_apart,
    "doorbell_blocks": _doorbell_blocks,
    "retry_posts_again": _retry_posts_again,
    "no_organization_lock_nor_seq_key": _no_organization_lock,
}
