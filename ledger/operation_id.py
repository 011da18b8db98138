"""The operation id: the UUID that identifies one payment to the bank and in the ledger."""

import re
from typing import Any
from uuid import UUID, uuid5

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

# RFC 9562's form, without hyphens, in braces, or as a URN; uuid.UUID alone accepts more.
_UUID = re.compile(
    r"(?:urn:uuid:)?(\{)?[0-9a-f]{8}(-?)(?:[0-9a-f]{4}\2){3}[0-9a-f]{12}(?(1)\})", re.IGNORECASE
)


_NAMESPACE_REVERSAL = UUID("7b0f3f0e-6a52-4c55-9d1c-2f6f0f5a9e11")


def reversal_id(operation_id: UUID) -> UUID:
    """Return the operation id of the reversal of this operation: there is only one."""
    return uuid5(_NAMESPACE_REVERSAL, str(operation_id))


def parse_operation_id(text: str) -> UUID | None:
    """Return the UUID that `text` spells in any of the usual forms, or None."""
    return UUID(text.lower()) if _UUID.fullmatch(text) else None


class OperationIdField(models.UUIDField):  # type: ignore[type-arg]  # Django's own class takes no argument
    """A UUID as 32 hexadecimal digits on every database.

    MariaDB has a UUID type, which Django would use and which refuses unknown versions and variants (error
    1292): a bank's operation must not fail on that.
    """

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        return "char(32)"

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:  # noqa: FBT001, FBT002 Django's signature
        uuid = self.to_python(value)
        return None if uuid is None else uuid.hex
