"""The inbox is guarded as the ledger is: the database refuses to remove a webhook, and to change or remove a
person's act."""

from ledger import triggers

_AUDIT_TRAIL = ("ingest", "0005_audit_trail_only_grows")
ACTS = {
    "ingest_act": triggers.Guarded(_AUDIT_TRAIL, [("id",)]),
    "ingest_actedwebhook": triggers.Guarded(
        _AUDIT_TRAIL,
        [("id",), ("act_id", "webhook_id")],
        allowed="OLD.outcome = '' AND NEW.outcome <> '' AND NEW.id = OLD.id"
        " AND NEW.act_id = OLD.act_id AND NEW.webhook_id = OLD.webhook_id",
    ),
}
# Each webhook is updated when it is applied, and any trigger on that, whatever it compares, costs 8 of some
# 85 microseconds. So what a bank said is fixed by grants of columns (deploy/mysql/column_grants.sql), and
# compared with the kept bodies by verify_ledger (ingest/rereading.py).
WEBHOOKS = {
    "ingest_webhook": triggers.Guarded(("ingest", "0012_webhook_terms_fixed"), may_be_updated=True),
}
GUARDED = ACTS | WEBHOOKS
