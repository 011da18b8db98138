"""Sber API's webhook on the operations of a statement: which operation, and which version of it.

Sources: https://developers.sber.ru/docs/ru/sber-api/start/webhooks/partner-webhook (the envelope) and
https://developers.sber.ru/docs/ru/sber-api/specifications/statement/wh-transactions (key and versions).
There is no endpoint: docs/banks.md says what is missing for one.
"""

from typing import NamedTuple
from uuid import UUID, uuid5

from ingest import field_rules
from ingest.banks.events import BANK_REFERENCE_CHARS_MAX
from ingest.banks.json_fields import JsonObject, parse_json_object

NAMESPACE = UUID("55751ca4-9e73-5250-9d9d-6dc74d63fb6b")  # uuid5(NAMESPACE_URL, "https://www.sberbank.ru/")


class OperationVersion(NamedTuple):
    operation_id: UUID  # ours
    version: int  # versions.DELETED, which is Sber's own mark, for a deleted operation


def operation_version(payload: bytes) -> OperationVersion:
    """Return the operation of an event, and its version. Raise InvalidDelivery.

    Not `eventVersion`, which is the version of the event's format, nor X-WH-Request-Id, which is another for
    each delivery.
    """
    event = parse_json_object(payload)
    event.require_unique()
    content = event.nested("content")
    text = content.text_or_integer("version")  # which refuses null
    return OperationVersion(_operation_id(content), field_rules.version(text.encode(), "content.version"))


def _operation_id(content: JsonObject) -> UUID:
    name = "operationId" if content.fields.get("operationId") is not None else "externalId"
    text = content.text_or_integer(name)
    field_rules.bounded_text(text, f"content.{name}", chars_max=BANK_REFERENCE_CHARS_MAX)
    return uuid5(NAMESPACE, f"{name} {text}")
