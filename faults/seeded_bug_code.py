# ruff: noqa: SLF001 a bug between two steps has to wrap private functions
"""The code of the seeded bugs, planted into the production processes; the checker must detect each."""

import dataclasses
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

from celery import current_app
from django.db import connection, transaction

from faults import statement_bugs
from ingest import correction_actions, doorbell, group_commit, operator_actions, version_corrections
from ingest.banks.events import CreditEvent
from ingest.batch import Stored
from ingest.inbox import Arrival, StoreResult
from ingest.models import OperationVersion, OperatorAction, OperatorActionItem, Webhook
from ledger import posting
from ledger.exceptions import MissingOrganizations
from ledger.models import Organization, Payment
from ledger.terms import PaymentTerms
from worker import applying, claiming

ClaimFunction = Callable[[], claiming.Claim]


def install(name: str) -> None:
    """Plant the bug of this name; one of the database alone has no code."""
    {**BUG_INSTALLERS, **statement_bugs.INSTALLERS}.get(name, lambda: None)()


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
