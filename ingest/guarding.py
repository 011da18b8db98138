"""The audit trail is guarded as the ledger is: the database refuses to change or remove a person's act."""

from ledger import triggers

_MIGRATION = ("ingest", "0005_audit_trail_only_grows")
GUARDED = {
    "ingest_act": triggers.Guarded(_MIGRATION, [("id",)]),
    "ingest_actedwebhook": triggers.Guarded(
        _MIGRATION,
        [("id",), ("act_id", "webhook_id")],
        allowed="OLD.outcome = '' AND NEW.outcome <> '' AND NEW.id = OLD.id"
        " AND NEW.act_id = OLD.act_id AND NEW.webhook_id = OLD.webhook_id",
    ),
}
