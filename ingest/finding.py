"""By which names an operation is found: our operation id, and the id that its bank has for it."""

from uuid import UUID

from ingest.banks import tbank, tochka
from ingest.exceptions import InvalidDelivery
from ingest.models import BankOperation, Webhook
from ingest.signing import claimed_payload
from ledger.operation_id import as_operation_id


def operations_called(text: str) -> set[UUID]:
    """The operation ids that `text` may mean; every look-up is by a primary key."""
    ours = as_operation_id(text)
    at_tbank = BankOperation.objects.filter(alias=tbank.alias(text)).values_list("operation_id", flat=True)
    return {*at_tbank, tochka.operation_id(text), *([ours] if ours else [])}


def banks_ids(webhook: Webhook) -> list[str]:
    """What the bank calls it; none where the bank uses our operation id, or the body is gone."""
    if webhook.source == tochka.SOURCE:
        try:
            return [tochka.payment_id(claimed_payload(bytes(webhook.body)))]
        except InvalidDelivery:
            return []
    known = BankOperation.objects.filter(operation_id=webhook.operation_id)
    return sorted(known.values_list("bank_id", flat=True))
