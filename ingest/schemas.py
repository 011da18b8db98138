"""What the bank is answered, and who asks for an operation. The API's document is built from these, too."""

from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, Struct

from core.http import AwareDatetime
from ingest.models import Webhook


class DeliveryAck(Struct):
    """The operation is in the inbox, since now or since before. Or the delivery holds none to credit; or it
    may hold one, and waits for a person.
    """

    status: Literal["success", "already processed", "ignored", "unrecognized"]


class OperationStatus(Struct):
    """Where an operation is."""

    operation_id: UUID
    status: Annotated[str, Meta(extra_json_schema={"enum": Webhook.Status.values})]
    received_at: AwareDatetime
    applied_at: AwareDatetime | None
