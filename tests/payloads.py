"""What a bank would POST; without Django, so that it can be told from outside a house too."""

import json

from ledger.terms import PaymentTerms


def payment_body(told: PaymentTerms, **changed: object) -> bytes:
    """In our own contract; `changed` fields replace those of `told`."""
    fields: dict[str, object] = {
        "operation_id": str(told.operation_id),
        "amount": f"{told.amount_kopecks // 100}.{told.amount_kopecks % 100:02}",
        "payer_inn": told.inn,
        "document_number": told.document_number,
        "document_date": told.document_date.isoformat(),
    }
    return json.dumps(fields | changed).encode()
