"""The inbox's append-only tables: triggers refuse to delete a webhook, and to change or delete an operator
action or a version of an operation, whose body retention may empty."""

from ledger import triggers

_INITIAL = ("ingest", "0001_initial")
_FIXED = [
    *("id", "operation_id", "position", "version", "decision", "received_at"),
    *("payer_inn", "amount_kopecks", "document_number", "document_date"),
]
_SAME_VERSION = " AND ".join(f"NEW.{column} = OLD.{column}" for column in _FIXED)
APPEND_ONLY_TABLES = {
    "ingest_operatoraction": triggers.AppendOnlyTable(_INITIAL, [("id",)]),
    "ingest_operatoractionitem": triggers.AppendOnlyTable(
        _INITIAL,
        [("id",), ("action_id", "webhook_id")],
        allowed="OLD.outcome = '' AND NEW.outcome <> '' AND NEW.id = OLD.id"
        " AND NEW.action_id = OLD.action_id AND NEW.webhook_id = OLD.webhook_id",
    ),
    "ingest_operationversion": triggers.AppendOnlyTable(
        _INITIAL,
        [("id",), ("operation_id", "position")],
        allowed=f"{_SAME_VERSION} AND (NEW.outcome = OLD.outcome"
        " OR OLD.outcome = 'due' AND NEW.outcome IN ('done', 'operator'))",
    ),
    # Applying a webhook updates it, and any trigger on UPDATE costs 8 of some 85 microseconds. So column
    # grants protect a webhook's terms (deploy/mysql/column_grants.sql), and verify_ledger compares them with
    # the stored bodies (ingest/body_verification.py).
    "ingest_webhook": triggers.AppendOnlyTable(_INITIAL, may_be_updated=True),
}
