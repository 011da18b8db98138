"""Corrections by the bank: the worker applies each due version of an operation to the ledger.

In order of arrival, each in one transaction with its outcome, so that a crash leaves it due. A correction
waits until the operation's webhook is applied or dismissed. It corrects only what stands as the versions
before it left it: an operation that an operator corrected by hand is left to an operator, as an open
conflict.
"""

import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import structlog
from django.db import DataError, IntegrityError, transaction
from django.db.models import Exists, OuterRef, QuerySet

from core.db import transactions
from ingest.inbox import Delivery, record_conflict
from ingest.models import OperationVersion, Webhook
from ingest.version_storage import VERSION
from ingest.versions import DELETED
from ledger import corrections
from ledger.exceptions import CorrectionRefused, MissingOrganizations
from ledger.models import Payment
from ledger.posting import create_organizations
from ledger.terms import PaymentTerms

log = structlog.get_logger(__name__)

CORRECTED_AT_ONCE_MAX = 1000
Outcome = OperationVersion.Outcome
_SETTLED = [Webhook.Status.APPLIED, Webhook.Status.DISMISSED, Webhook.Status.MERGED]


class _StandsAsWanted(CorrectionRefused):
    """There is nothing to correct."""


class _CorrectedByHand(CorrectionRefused):
    """The operation does not stand as the versions before left it."""


def due() -> QuerySet[OperationVersion]:
    """Return the versions that can be applied to the ledger now, in order of arrival."""
    settled = Webhook.objects.filter(operation_id=OuterRef("operation_id"), status__in=_SETTLED)
    return OperationVersion.objects.filter(Exists(settled), outcome=Outcome.DUE).order_by("id")


def run_due(until: float) -> bool:
    """Apply due versions until the monotonic time `until`; return whether some may be left.

    One that fails, for example on an unreachable database, does not delay the others; the next sweep retries.
    """
    for key in list(due().values_list("id", flat=True)[:CORRECTED_AT_ONCE_MAX]):
        try:
            transactions.run_with_retries(partial(apply, key))
        except Exception as exc:  # noqa: BLE001 the other versions must be applied
            log.warning("version not applied; the next sweep retries", version=key, error=repr(exc))
        if time.monotonic() > until:
            return True
    return False


def apply(key: int) -> None:
    """Apply a version that is due, unless another process has it locked. Raise CorrectionRefused."""
    try:
        return _apply(key)
    except MissingOrganizations as exc:
        create_organizations(exc.inns)
    return _apply(key)


def _apply(key: int) -> None:
    with transaction.atomic():
        rows = OperationVersion.objects.filter(pk=key, outcome=Outcome.DUE)
        row = rows.select_for_update(skip_locked=True).first()
        if row is None or _earlier(row).filter(outcome=Outcome.DUE).exists():
            return
        webhook = Webhook.objects.defer("body").get(operation_id=row.operation_id)
        outcome = _correct(row, webhook)
        _record(row, webhook, outcome)
    log.info(
        "version applied", operation_id=str(row.operation_id), version=row.version, outcome=outcome.value
    )


def _earlier(row: OperationVersion) -> QuerySet[OperationVersion]:
    return OperationVersion.objects.filter(operation_id=row.operation_id, position__lt=row.position)


def _correct(row: OperationVersion, webhook: Webhook) -> OperationVersion.Outcome:
    wanted = _wanted(row)
    if webhook.status == Webhook.Status.MERGED:  # its payment is another operation's
        return Outcome.OPERATOR
    if webhook.status == Webhook.Status.DISMISSED:  # nothing is posted
        return Outcome.DONE if wanted is None else Outcome.OPERATOR
    done = _earlier(row).filter(outcome=Outcome.DONE).defer("body").order_by("position")
    decide = _decision(standing(webhook, done), wanted)
    try:
        corrections.correct(row.operation_id, decide)
    except _StandsAsWanted:
        return Outcome.DONE
    except (_CorrectedByHand, IntegrityError, DataError):  # the latter two if a balance would overflow
        return Outcome.OPERATOR
    return Outcome.DONE


def _record(row: OperationVersion, webhook: Webhook, outcome: OperationVersion.Outcome) -> None:
    if outcome is Outcome.OPERATOR:
        record_conflict(webhook, VERSION, Delivery(bytes(row.body), row.source, row.client_ip))
    OperationVersion.objects.filter(pk=row.pk).update(outcome=outcome)


def _wanted(row: OperationVersion) -> PaymentTerms | None:
    return None if row.version == DELETED else row.terms


def standing(webhook: Webhook, done: Iterable[OperationVersion]) -> PaymentTerms | None:
    """Return the terms under which an applied webhook's operation stands after `done`; None: taken back."""
    terms: PaymentTerms | None = webhook.terms
    for row in done:
        terms = _wanted(row)
    return terms


def _decision(expected: PaymentTerms | None, wanted: PaymentTerms | None) -> corrections.Decide:
    def decide(payment: Payment) -> PaymentTerms | None:
        now = stands_under(payment)
        if is_equal(now, wanted):
            raise _StandsAsWanted
        if not is_equal(now, expected):
            raise _CorrectedByHand
        return wanted

    return decide


def stands_under(payment: Payment) -> PaymentTerms | None:
    """Return the terms of an operation's last payment; None if it is reversed."""
    return None if corrections.is_reversed(payment) else payment.terms


def is_equal(first: PaymentTerms | None, other: PaymentTerms | None) -> bool:
    """Compare without the operation id, which a replacement does not share."""
    if first is None or other is None:
        return first is other
    return replace(first, operation_id=other.operation_id) == other
