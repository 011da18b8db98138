"""How long the bytes of bank statements are kept. Their lines and balances are kept for ever."""

from django.conf import settings

from statements.models import BankStatement
from worker import retention
from worker.retention import RetentionRule


def statement_bodies() -> RetentionRule:
    """Return the rule that empties bodies; a statement is still known by its digest."""
    days = settings.RAW_BODY_RETENTION_DAYS
    return retention.emptied_bodies(
        "raw bodies of bank statements", BankStatement.objects.all(), "uploaded_at", days
    )


retention.register(statement_bodies)
