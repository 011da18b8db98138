"""Durable storage of what the bank tells. When a function here returns, the row is committed."""

from dataclasses import fields
from datetime import timedelta
from enum import Enum

from django.conf import settings
from django.db import IntegrityError
from django.utils import timezone

from ingest.models import ConflictingDelivery, KeptDelivery, RejectedDelivery, RepeatedDelivery, Webhook
from ledger.terms import PaymentTerms


class Stored(Enum):
    NEW = "new"
    REPEATED = "repeated"  # this operation id was stored before, with the same content
    CONFLICTING = "conflicting"  # … with other content


def store(terms: PaymentTerms, body: bytes) -> Stored:
    """Store a delivery as a new webhook, or beside the webhook that this operation id has already.

    The unique key decides who is first; a look beforehand would only be right until the INSERT.
    Raises django.db.DatabaseError when nothing could be stored.
    """
    try:
        Webhook.objects.create(
            operation_id=terms.operation_id,
            payer_inn=terms.inn,
            amount_kopecks=terms.amount_kopecks,
            document_number=terms.document_number,
            document_date=terms.document_date,
            body=body,
        )
    except IntegrityError:
        first = Webhook.objects.filter(operation_id=terms.operation_id).first()
        if first is None:  # another constraint than the unique key
            raise
        return _store_beside(first, terms, body)
    return Stored.NEW


def _store_beside(first: Webhook, terms: PaymentTerms, body: bytes) -> Stored:
    if first.terms == terms:
        _keep(RepeatedDelivery(webhook=first))
        return Stored.REPEATED
    _keep(ConflictingDelivery(webhook=first, body=body, difference=_difference(first.terms, terms)))
    return Stored.CONFLICTING


def keep_rejected(body: bytes, reason: str) -> None:
    """Keep a delivery that was answered 400, for the admins."""
    _keep(RejectedDelivery(body=body, reason=reason[:255]))


def _keep(delivery: KeptDelivery) -> None:
    """Save `delivery`, and let go of what stands too far behind it: a flood can't fill the disk."""
    delivery.save(force_insert=True)
    type(delivery).objects.filter(pk__lte=delivery.pk - settings.KEPT_DELIVERIES_MAX).delete()


def _difference(first: PaymentTerms, second: PaymentTerms) -> str:
    names = [field.name for field in fields(PaymentTerms)]
    return ", ".join(name for name in names if getattr(first, name) != getattr(second, name))


def forget_old_deliveries() -> None:
    """Let go of kept deliveries older than KEPT_DELIVERIES_DAYS."""
    oldest = timezone.now() - timedelta(days=settings.KEPT_DELIVERIES_DAYS)
    for model in KeptDelivery.__subclasses__():
        model.objects.filter(received_at__lt=oldest).delete()
