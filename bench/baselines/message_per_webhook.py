"""The request writes a row and sends a message; a worker's task posts it, one transaction each."""

from celery import shared_task
from django.utils import timezone

from bench.baselines.orm_posting import credit, run_in_transaction
from bench.baselines.webhook_view import make_view
from ingest.models import Webhook
from ledger.terms import PaymentTerms


def store_and_send(terms: PaymentTerms, body: bytes) -> None:
    webhook = Webhook.objects.create(
        operation_id=terms.operation_id,
        payer_inn=terms.inn,
        amount_kopecks=terms.amount_kopecks,
        document_number=terms.document_number,
        document_date=terms.document_date,
        body=body,
    )
    apply.delay_on_commit(webhook_id=webhook.pk, inn=terms.inn)


@shared_task(ignore_result=True, acks_late=True)
def apply(webhook_id: int, inn: str) -> None:
    def credit_once() -> None:
        webhook = Webhook.objects.select_for_update().get(pk=webhook_id)
        if webhook.status == Webhook.Status.RECEIVED:  # a message may be delivered twice
            credit(webhook.terms)
            webhook.status = Webhook.Status.APPLIED
            webhook.applied_at = timezone.now()
            webhook.save(update_fields=["status", "applied_at"])

    run_in_transaction(inn, credit_once)


bank_webhook = make_view(store_and_send)
