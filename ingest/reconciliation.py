"""The inbox against the ledger: every payment has a reason, and every applied webhook had its effect.

* A payment has a webhook of the same operation id, which is applied and says the same terms.
* An applied webhook has a payment.
* A webhook says what its kept body says (ingest/body_verification.py).

A webhook that is received, failed or dismissed has no payment, because an operation id belongs to one
webhook, and the first rule wants it applied. That includes a webhook which failed because its operation
was posted before under other terms: nothing here posts without a webhook, so somebody else wrote that
payment, and no bank told us of it. A person must look at it; so it is drift.

A payment and its webhook's mark are committed together, so one statement sees both or neither.
"""

from collections.abc import Iterator
from dataclasses import fields

from django.db.models import CharField, Exists, Func, OuterRef

from ingest.body_verification import verify_bodies
from ingest.models import Webhook
from ledger.models import Payment
from ledger.terms import PaymentTerms
from ledger.verification import PK_MIN, Drift, Progress, failing_pks, no_progress


class _Bytes(Func):
    """Text as hexadecimal digits, because the collation of a column calls pay-1 and PAY-1 equal."""

    function = "HEX"
    output_field = CharField()


def reconcile(
    progress: Progress = no_progress, *, payments_after: int = PK_MIN, webhooks_after: int = PK_MIN
) -> Iterator[Drift]:
    """Every drift between inbox and ledger, as it is found; none when all is right.

    Of the payments and webhooks behind these primary keys.
    """
    applied = Webhook.objects.filter(
        operation_id=OuterRef("operation_id"),
        status=Webhook.Status.APPLIED,
        payer_inn=OuterRef("organization__inn"),
        amount_kopecks=OuterRef("amount_kopecks"),
        document_date=OuterRef("document_date"),
    ).alias(number=_Bytes("document_number"))
    explained = Exists(applied.filter(number=_Bytes(OuterRef("document_number"))))
    for pk in failing_pks(
        Payment.objects.filter(~explained), "payments against the inbox", progress, payments_after
    ):
        yield _unexplained(Payment.objects.select_related("organization").get(pk=pk))

    posted = Exists(Payment.objects.filter(operation_id=OuterRef("operation_id")))
    without = Webhook.objects.filter(~posted, status=Webhook.Status.APPLIED)
    for pk in failing_pks(without, "webhooks", progress, webhooks_after):
        webhook = Webhook.objects.get(pk=pk)
        rule, operation_id = "an applied webhook has a payment", webhook.operation_id
        yield Drift(
            "payment", rule, f"the payment of webhook {pk}", None, webhook.payer_inn, None, operation_id
        )
    yield from verify_bodies(progress, webhooks_after)


def _unexplained(payment: Payment) -> Drift:
    inn, operation_id = payment.organization.inn, payment.operation_id
    webhook = Webhook.objects.filter(operation_id=operation_id).first()
    status = None if webhook is None else webhook.status
    if webhook is None or status != Webhook.Status.APPLIED:
        rule = "a payment has an applied webhook"
        return Drift("webhook", rule, Webhook.Status.APPLIED.value, status, inn, None, operation_id)
    told, posted = webhook.terms, payment.terms
    name = next(f.name for f in fields(PaymentTerms) if getattr(told, f.name) != getattr(posted, f.name))
    rule = f"{name.removesuffix('_kopecks')} of a payment is that of its webhook"
    return Drift(name, rule, _plain(told, name), _plain(posted, name), inn, None, operation_id)


def _plain(terms: PaymentTerms, name: str) -> int | str:
    value = getattr(terms, name)
    return value if isinstance(value, int) else str(value)
