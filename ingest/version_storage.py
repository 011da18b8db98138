"""Storage of versioned deliveries: each new version of an operation is a row, decided by ingest/versions.py.

The unique key on operation and position serializes the versions of one operation: of two processes that store
one at the same time, the second decides again with the first one's row. No lock that a worker holds is waited
for. A correction is due until ingest/version_corrections.py has applied it to the ledger.
"""

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from uuid import UUID

from django.db import IntegrityError, transaction

from ingest import delivery_records
from ingest.error_fingerprint import error_fields
from ingest.inbox import Delivery, StoreResult, duplicate, insert_webhooks, record_conflict
from ingest.models import OperationVersion, Webhook
from ingest.versions import UNNUMBERED, Decision, Version, decide
from ledger.terms import PaymentTerms

TRIES_MAX = 20  # each lost to another process that stored a version of the same operation
VERSIONS_MAX = 1000  # of an operation; a further one is a conflict, which are bounded, too
RESTORATION_UNCLEAR = "restoration_unclear"  # difference of a conflict that is a version after a deletion
VERSION = "version"  # difference of a version that only an operator can apply
DELETED_BEFORE = "the bank deleted this operation before its first version arrived; replay posts it"
_DUE = {Decision.CORRECTION, Decision.DELETION}
Outcome = OperationVersion.Outcome


def store(terms: PaymentTerms, number: int, delivery: Delivery) -> StoreResult:
    """Store a version of an operation; the first one is a webhook, too.

    Return CREATED if there is something to post or to correct, DUPLICATE if not, and CONFLICT if an operator
    decides. Raise django.db.DatabaseError if nothing was stored.
    """
    for tries in range(1, TRIES_MAX + 1):
        try:
            with transaction.atomic():
                return _store(terms, number, delivery)
        except IntegrityError:
            if tries == TRIES_MAX:
                raise
    raise AssertionError("unreachable")


def approve(webhook: Webhook, terms: PaymentTerms, number: int, delivery: Delivery) -> None:
    """Record that an operator had this version of a conflict posted, or carried out its deletion."""
    position = len(history(webhook.operation_id, webhook))
    _append(position, Version(number, terms, Decision.APPROVED), delivery, Outcome.DONE)


def history(operation_id: UUID, webhook: Webhook | None) -> list[Version]:
    """Return the versions of an operation in order of arrival.

    A webhook that came without a version is the first. A version that was unclear, and whose webhook an
    operator replayed, is approved.
    """
    rows = OperationVersion.objects.filter(operation_id=operation_id).defer("body").order_by("position")
    versions = [Version(row.version, row.terms, Decision(row.decision)) for row in rows]
    if webhook is None:
        return versions
    if not any(version.decision in {Decision.FIRST, Decision.UNCLEAR} for version in versions):
        return [Version(UNNUMBERED, webhook.terms, Decision.FIRST), *versions]
    if webhook.status not in {Webhook.Status.FAILED, Webhook.Status.DISMISSED}:
        return [
            v._replace(decision=Decision.APPROVED) if v.decision is Decision.UNCLEAR else v for v in versions
        ]
    return versions


def _store(terms: PaymentTerms, number: int, delivery: Delivery) -> StoreResult:
    webhook = Webhook.objects.filter(operation_id=terms.operation_id).defer("body").first()
    versions = history(terms.operation_id, webhook)
    decision = decide(versions, number, terms)
    version = Version(number, terms, decision)
    if webhook and (difference := _difference(webhook, versions, version, delivery)):
        record_conflict(webhook, difference, delivery)
        return StoreResult.CONFLICT
    if decision is Decision.DUPLICATE:
        if webhook:
            delivery_records.save_bounded(duplicate(webhook, delivery))
        return StoreResult.DUPLICATE
    if webhook is None and decision is not Decision.REMEMBERED:
        insert_webhooks([(terms, delivery)])
        delivery = replace(delivery, body=b"")  # the webhook has it
        if decision is Decision.UNCLEAR:
            _fail(terms.operation_id)
    _append(len(versions), version, delivery, Outcome.DUE if decision in _DUE else Outcome.NONE)
    return StoreResult.DUPLICATE if decision is Decision.STALE else StoreResult.CREATED


def _difference(webhook: Webhook, versions: Sequence[Version], version: Version, delivery: Delivery) -> str:
    """Return what an operator has to decide about a version; empty if nothing."""
    if webhook.source != delivery.source:
        return "source"
    if version.decision is Decision.UNCLEAR:
        return RESTORATION_UNCLEAR
    if version.decision is Decision.CONFLICT:
        known = {each.number: each.terms for each in versions}[version.number]
        names = [field.name for field in fields(PaymentTerms)]
        return ", ".join(name for name in names if getattr(known, name) != getattr(version.terms, name))
    is_new = version.decision is not Decision.DUPLICATE
    return VERSION if is_new and len(versions) >= VERSIONS_MAX else ""


def _fail(operation_id: UUID) -> None:
    """Leave a webhook to an operator, who replays or dismisses it."""
    webhooks = Webhook.objects.filter(operation_id=operation_id)
    webhooks.update(status=Webhook.Status.FAILED, **error_fields(DELETED_BEFORE))


def _append(position: int, version: Version, delivery: Delivery, outcome: "OperationVersion.Outcome") -> None:
    terms = version.terms
    OperationVersion.objects.create(
        position=position,
        operation_id=terms.operation_id,
        version=version.number,
        payer_inn=terms.inn,
        amount_kopecks=terms.amount_kopecks,
        document_number=terms.document_number,
        document_date=terms.document_date,
        decision=version.decision,
        outcome=outcome,
        **asdict(delivery),
    )
