# ruff: noqa: SLF001 a failpoint between two steps has to wrap private functions
"""Failpoints between the steps of our code, poison payments and seeded bugs, in the production processes.

The production code contains none of this: faults/settings.py makes Django load it, and it wraps the functions
on both sides of a step. The nemesis arms a failpoint by a file in FAULTS_FOLDER. The first process that
reaches the failpoint removes the file and acts, so each file fires once, in one process.
"""

import dataclasses
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from celery import current_app
from django.db import connection, transaction
from django.db.models import QuerySet

from ingest import correction_actions, doorbell, group_commit, operator_actions, version_corrections
from ingest.banks.events import CreditEvent
from ingest.batch import Stored
from ingest.inbox import Arrival, StoreResult
from ingest.models import OperationVersion, OperatorAction, OperatorActionItem, Webhook
from ledger import corrections, posting
from ledger.exceptions import MissingOrganizations
from ledger.models import Organization, Payment
from ledger.terms import PaymentTerms
from worker import applying, claiming, retries

FOLDER = Path(os.environ["FAULTS_FOLDER"])
POISON = "POISON-"
FIXED = FOLDER / "fixed"
ClaimFunction = Callable[[], claiming.Claim]


class InjectedError(Exception):
    """Raised by a failpoint."""


def _raise() -> None:
    raise InjectedError("armed by the nemesis")


ACTIONS: dict[str, Callable[[], object]] = {
    "raise": _raise,
    "exit": lambda: os._exit(1),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}
# Step, module, function, and whether the failpoint is before or after the call.
FAILPOINTS: list[tuple[str, Any, str, str]] = [
    ("stored", group_commit, "store_batch", "after"),  # committed; not rung, no response
    ("rung", doorbell, "ring", "after"),  # no response
    ("locked", claiming, "try_lock", "after"),
    ("claimed", claiming, "_lock_webhooks", "after"),
    ("marked", applying, "_mark_applied", "after"),  # not posted
    ("logged", posting, "_update_balances", "before"),
    ("posted", applying, "post", "after"),  # not committed
    ("applied", applying, "apply_batch", "after"),  # committed; the message is not acknowledged
    ("begun", retries, "begin_attempts", "after"),  # the attempt is counted
    ("applied-individually", applying, "apply_ids", "after"),
    # Of an operator action's chunk, which corrects one payment:
    ("chunk", operator_actions, "_run_chunk", "before"),
    ("reversed", posting, "reverse", "after"),  # not replaced
    ("replaced", posting, "replace", "after"),  # in the savepoint still
    ("corrected", corrections, "correct", "after"),  # the action's item is not marked
    ("item-marked", operator_actions, "_mark", "after"),  # not committed
    ("chunk-committed", operator_actions, "_run_chunk", "after"),  # the next chunk has not begun
    # Of a version of an operation, which corrects one payment:
    ("version-begun", version_corrections, "_apply", "before"),
    ("version-corrected", version_corrections, "_correct", "after"),  # its outcome is not recorded
    ("version-recorded", version_corrections, "_record", "after"),  # not committed
    ("version-applied", version_corrections, "_apply", "after"),
]


def install() -> None:
    for step, module, name, side in FAILPOINTS:
        _wrap(module, name, before=step if side == "before" else "", after=step if side == "after" else "")
    _poison()
    BUG_INSTALLERS.get(os.environ["FAULTS_SEEDED_BUG"], lambda: None)()


def _wrap(module: Any, name: str, *, before: str, after: str) -> None:
    wrapped = getattr(module, name)

    def wrapper(*arguments: Any, **keywords: Any) -> Any:
        _fire(before)
        result = wrapped(*arguments, **keywords)
        _fire(after)
        return result

    setattr(module, name, wrapper)


def _fire(step: str) -> None:
    for name, action in ACTIONS.items():
        if step and _claim_file(FOLDER / f"{step}.{name}"):
            action()


def _claim_file(file: Path) -> bool:
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True


def _poison() -> None:
    post = applying.post

    def post_unless_poison(source: QuerySet[Any], organizations: Mapping[str, int]) -> None:
        poison = source.filter(document_number__startswith=POISON)
        if poison and not FIXED.exists():
            ACTIONS["exit" if poison.filter(document_number__contains="KILL") else "raise"]()
        post(source, organizations)

    applying.post = post_unless_poison


# Seeded bugs: the checker must detect each


def _no_organization_lock() -> None:
    vars(Organization.objects)["select_for_update"] = lambda **_: Organization.objects.all()
    update = posting._update_balances

    def walk_without_locks(webhooks_max: int, _last: str | None) -> Iterator[tuple[str, list[int]]]:
        # Without this, the foreign key's lock on the organization, or the webhooks' locks, would replace it.
        connection.disable_constraint_checking()
        unlocked = Webhook.objects.queued().select_for_update(skip_locked=True)
        rows = sorted(unlocked.values_list("payer_inn", "pk")[:webhooks_max])
        for inn, group in groupby(rows, itemgetter(0)):
            yield inn, [key for _, key in group]

    def delay_and_update(organization_ids: Collection[int]) -> None:
        time.sleep(0.05)  # makes concurrent updates certain, which are rare on a fast machine
        update(organization_ids)

    claiming._scan, posting._update_balances = walk_without_locks, delay_and_update


def _acknowledge_before_commit() -> None:
    store_batch = group_commit.store_batch

    def store_later(arrivals: Sequence[Arrival]) -> list[Stored | Exception]:
        threading.Timer(0.2, store_batch, [arrivals]).start()
        return [StoreResult.CREATED] * len(arrivals)

    group_commit.store_batch = store_later


def _batch_failure_acknowledged() -> None:
    store_batch = group_commit.store_batch

    def store_and_hide_failures(arrivals: Sequence[Arrival]) -> list[Stored | Exception]:
        results = store_batch(arrivals)
        return [StoreResult.CREATED if isinstance(result, Exception) else result for result in results]

    group_commit.store_batch = store_and_hide_failures


def _loses(arrival: Arrival) -> bool:
    return isinstance(arrival.event, CreditEvent) and arrival.event.terms.operation_id.int % 20 == 0


def _future_lost() -> None:
    set_results = group_commit._set_results

    def set_most(pairs: Sequence[Any]) -> None:
        set_results([pair for pair in pairs if not _loses(pair[0].arrival)])

    group_commit._set_results = set_most  # type: ignore[assignment]


def _mark_in_own_transaction() -> None:
    def claim_and_mark(claim: ClaimFunction) -> list[int]:
        with transaction.atomic():
            _, webhook_ids = claim()
            if webhook_ids:
                applying._mark_applied(webhook_ids)
        return webhook_ids

    def apply_in_two_transactions(claim: ClaimFunction) -> list[int]:
        try:
            webhook_ids = claim_and_mark(claim)
        except MissingOrganizations as exc:
            applying.create_organizations(exc.inns)
            return apply_in_two_transactions(claim)
        except claiming.ClaimLost:
            return apply_in_two_transactions(claim)
        source = Webhook.objects.filter(id__in=webhook_ids).with_payment_terms()
        with transaction.atomic():
            inns = set(source.values_list("inn", flat=True))
            list(Organization.objects.select_for_update().filter(inn__in=inns).order_by("id"))
            if inns:
                applying.post(source, claiming.try_lock(inns))
        return webhook_ids

    applying._apply = apply_in_two_transactions


def _doorbell_blocks() -> None:
    doorbell.ring = lambda: current_app.send_task(doorbell.APPLY_TASK, ignore_result=True)


def _retry_posts_again() -> None:
    apply = applying._apply

    def apply_again_sometimes(claim: ClaimFunction) -> list[int]:
        webhook_ids = apply(claim)
        if webhook_ids and random.random() < 0.1:
            source = Webhook.objects.filter(id__in=webhook_ids).with_payment_terms()
            with transaction.atomic():
                organizations = claiming.try_lock(set(source.values_list("inn", flat=True)))
                if organizations:
                    applying.post(source.filter(inn__in=organizations), organizations)
        return webhook_ids

    applying._apply = apply_again_sometimes


def _replacement_in_own_transaction() -> None:
    replace = posting.replace

    def replace_later(payment: Payment, terms: PaymentTerms, organizations: Mapping[str, int]) -> None:
        def replace_now() -> None:
            time.sleep(0.05)  # makes certain that a reader sees it
            with transaction.atomic():
                replace(payment, terms, posting.try_lock(set(organizations), wait=True))

        transaction.on_commit(replace_now)

    posting.replace = replace_later


def _reversal_credited() -> None:
    insert_entries = posting._insert_entries
    posting._insert_entries = lambda after, organization_ids, _sign: insert_entries(
        after, organization_ids, 1
    )


def _replacement_gains_a_kopeck() -> None:
    replace = posting.replace

    def replace_by_more(payment: Payment, terms: PaymentTerms, organizations: Mapping[str, int]) -> None:
        replace(payment, dataclasses.replace(terms, amount_kopecks=terms.amount_kopecks + 1), organizations)

    posting.replace = replace_by_more


def _item_done_before_correction() -> None:
    run = correction_actions.run

    def run_after_commit(action: OperatorAction, webhook_ids: Collection[int]) -> dict[int, str]:
        transaction.on_commit(partial(run, action, list(webhook_ids)))
        return dict.fromkeys(webhook_ids, OperatorActionItem.Outcome.DONE.value)

    operator_actions._RUNNERS.update(dict.fromkeys(correction_actions.KINDS, run_after_commit))


def _version_done_before_correction() -> None:
    correct = version_corrections._correct

    def correct_after_commit(row: OperationVersion, webhook: Webhook) -> OperationVersion.Outcome:
        transaction.on_commit(partial(correct, row, webhook))
        return OperationVersion.Outcome.DONE

    version_corrections._correct = correct_after_commit


def _organization_updated_after_commit() -> None:
    update = posting._update_balances
    posting._update_balances = lambda keys: transaction.on_commit(partial(update, keys))


BUG_INSTALLERS: dict[str, Callable[[], None]] = {
    "no_organization_lock": _no_organization_lock,
    "acknowledge_before_commit": _acknowledge_before_commit,
    "batch_failure_acknowledged": _batch_failure_acknowledged,
    "future_lost": _future_lost,
    "mark_in_own_transaction": _mark_in_own_transaction,
    "doorbell_blocks": _doorbell_blocks,
    "retry_posts_again": _retry_posts_again,
    "no_organization_lock_nor_seq_key": _no_organization_lock,
    "replacement_in_own_transaction": _replacement_in_own_transaction,
    "reversal_credited": _reversal_credited,
    "replacement_gains_a_kopeck": _replacement_gains_a_kopeck,
    "item_done_before_correction": _item_done_before_correction,
    "version_done_before_correction": _version_done_before_correction,
    "organization_updated_after_commit": _organization_updated_after_commit,
}
