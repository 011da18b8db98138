"""Reconciliation of the inbox with the ledger: every payment has a cause, every applied webhook its effect.

* A payment has an applied webhook with the same operation id and the same terms. Corrections have none: a
  reversal follows from the payment that it takes back, and a replacement is recorded as one. Both have a
  cause of their own (ingest/correction_audit.py).
* An applied webhook has a payment.
* A merged webhook has an applied one, made from a bank statement, of the same amount; each at most one.
* A webhook has the terms of its stored body (ingest/body_verification.py).
* An operation with versions stands as the last one left it (ingest/version_verification.py).

A received, failed or dismissed webhook has no payment, because an operation id belongs to one webhook, and
the first rule requires it to be applied. This includes a webhook that failed because its operation was posted
before with other terms: this application never posts without a webhook, so that payment was written by
something else, and no bank reported it. That is drift, for an operator to examine.

A payment and its webhook's status are committed together, so one statement reads both or neither.
"""

from collections.abc import Iterator
from dataclasses import fields

from django.db.models import CharField, Exists, Func, OuterRef, Q

from ingest.body_verification import verify_bodies
from ingest.correction_audit import verify_causes
from ingest.models import StatementWebhook, Webhook
from ingest.version_verification import verify_versions
from ledger.models import Payment
from ledger.terms import PaymentTerms
from ledger.verification import PK_MIN, Drift, Progress, failing_pks, no_progress


class _Hex(Func):
    """Text as hexadecimal digits, because the column's collation treats pay-1 and PAY-1 as equal."""

    function = "HEX"
    output_field = CharField()


def reconcile(
    progress: Progress = no_progress, *, payments_after: int = PK_MIN, webhooks_after: int = PK_MIN
) -> Iterator[Drift]:
    """Yield each drift between inbox and ledger, in payments and webhooks after these primary keys."""
    applied = Webhook.objects.filter(
        operation_id=OuterRef("operation_id"),
        status=Webhook.Status.APPLIED,
        payer_inn=OuterRef("organization__inn"),
        amount_kopecks=OuterRef("amount_kopecks"),
        document_date=OuterRef("document_date"),
    ).alias(number=_Hex("document_number"))
    has_cause = Exists(applied.filter(number=_Hex(OuterRef("document_number"))))
    without_cause = Payment.objects.filter(~has_cause, reverses__isnull=True, replaces__isnull=True)
    for pk in failing_pks(without_cause, "payments against the inbox", progress, payments_after):
        yield _drift_of_payment(Payment.objects.select_related("organization").get(pk=pk))

    is_posted = Exists(Payment.objects.filter(operation_id=OuterRef("operation_id")))
    merged_into = StatementWebhook.objects.filter(
        merged=OuterRef("pk"), kopecks=OuterRef("amount_kopecks"), webhook__status=Webhook.Status.APPLIED
    )
    without_effect = Webhook.objects.filter(
        Q(~is_posted, status=Webhook.Status.APPLIED) | Q(~Exists(merged_into), status=Webhook.Status.MERGED)
    )
    for pk in failing_pks(without_effect, "webhooks", progress, webhooks_after):
        yield _drift_of_webhook(Webhook.objects.get(pk=pk))
    yield from verify_causes(progress, payments_after)
    yield from verify_bodies(progress, webhooks_after)
    if webhooks_after == PK_MIN:
        yield from verify_versions(progress)


def _drift_of_webhook(webhook: Webhook) -> Drift:
    what, rule = "payment", "an applied webhook has a payment"
    if webhook.status == Webhook.Status.MERGED:
        what, rule = "merged", "a merged webhook has an applied one that was made from a bank statement"
    expected = f"the payment of webhook {webhook.pk}"
    return Drift(what, rule, expected, None, webhook.payer_inn, None, webhook.operation_id)


def _drift_of_payment(payment: Payment) -> Drift:
    inn, operation_id = payment.organization.inn, payment.operation_id
    webhook = Webhook.objects.filter(operation_id=operation_id).first()
    status = None if webhook is None else webhook.status
    if webhook is None or status != Webhook.Status.APPLIED:
        rule = "a payment has an applied webhook"
        return Drift("webhook", rule, Webhook.Status.APPLIED.value, status, inn, None, operation_id)
    received, posted = webhook.terms, payment.terms
    name = next(f.name for f in fields(PaymentTerms) if getattr(received, f.name) != getattr(posted, f.name))
    rule = f"{name.removesuffix('_kopecks')} of a payment is that of its webhook"
    return Drift(name, rule, _value(received, name), _value(posted, name), inn, None, operation_id)


def _value(terms: PaymentTerms, name: str) -> int | str:
    value = getattr(terms, name)
    return value if isinstance(value, int) else str(value)
