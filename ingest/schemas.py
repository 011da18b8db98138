"""Response bodies of the webhook endpoints and of the operation status, also in the OpenAPI document."""

from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, Struct

from core.http import AwareDatetime
from ingest.models import Webhook

AckStatus = Literal["success", "already processed", "ignored", "unrecognized"]


class DeliveryAck(Struct):
    """The delivery is stored: as a webhook now or before, as no payment, or until an operator closes it."""

    status: AckStatus


class OperationStatus(Struct):
    """The processing status of an operation."""

    operation_id: UUID
    status: Annotated[str, Meta(extra_json_schema={"enum": Webhook.Status.values})]
    received_at: AwareDatetime
    applied_at: AwareDatetime | None
