"""Webhook bodies as a bank sends them; independent of Django, for use outside the tested processes."""

import json

from ledger.terms import PaymentTerms


def payment_body(payment: PaymentTerms, **changed: object) -> bytes:
    """Return the body of a payment in our own contract; `changed` fields replace those of `payment`."""
    fields: dict[str, object] = {
        "operation_id": str(payment.operation_id),
        "amount": f"{payment.amount_kopecks // 100}.{payment.amount_kopecks % 100:02}",
        "payer_inn": payment.inn,
        "document_number": payment.document_number,
        "document_date": payment.document_date.isoformat(),
    }
    return json.dumps(fields | changed).encode()
