"""The sections of the admin's front page: tables by purpose, in the same order in every language."""

from typing import Any

from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

# Model names by section. Models that an installation lacks are skipped; unlisted models go to SYSTEM.
SYSTEM = "system"
FAILURES = "Failures"  # no model, but a page of the webhooks
RECONCILIATION = "Reconciliation"  # no model, but a page of the lines of bank statements
NAMED_BY_APP = {"otp_static", "otp_totp"}  # backoffice/otp.py gives these apps descriptive names
SECTIONS: dict[str, tuple[str | Promise, list[str]]] = {
    "money": (_("Money"), ["Organization", "Payment", "BalanceLog", "UnassignedPayment", "Statement"]),
    "bank": (
        _("Bank"),
        [RECONCILIATION, "BankStatement", "OwnAccount", "StatementLine", "RejectedStatement"],
    ),
    "inbox": (
        _("Inbox"),
        [
            *("Webhook", FAILURES, "ConflictingDelivery", "RejectedDelivery", "IgnoredDelivery"),
            *("UnrecognizedDelivery", "OperationVersion", "SuspectedDuplicate"),
        ],
    ),
    "actions": (_("Operator actions"), ["OperatorAction"]),
    "access": (_("Access"), ["ApiKey", "User", "Group", "TOTPDevice", "StaticDevice"]),
    SYSTEM: (_("System"), ["TaskResult", "Heartbeat", "Alert", "LedgerVerification"]),
}


def group_by_purpose(apps: list[Any]) -> list[dict[str, Any]]:
    """Convert Django's list of apps into a list of sections of the same form."""
    models = {
        model["object_name"]: {**model, "name": app["name"]} if app["app_label"] in NAMED_BY_APP else model
        for app in apps
        for model in app["models"]
    }
    if "Webhook" in models:
        url = reverse("admin:ingest_webhook_failures")
        models[FAILURES] = {"name": _("Failures by cause"), "object_name": FAILURES, "admin_url": url}
    if "StatementLine" in models:
        url = reverse("admin:statements_reconciliation")
        models[RECONCILIATION] = {
            "name": _("Reconciliation"),
            "object_name": RECONCILIATION,
            "admin_url": url,
        }
    listed = {name for _heading, names in SECTIONS.values() for name in names}
    unlisted = [name for name in models if name not in listed]
    sections = {
        label: [models[name] for name in [*names, *(unlisted if label == SYSTEM else [])] if name in models]
        for label, (_heading, names) in SECTIONS.items()
    }
    return [
        {
            "name": SECTIONS[label][0],
            "app_label": label,
            "app_url": "",
            "has_module_perms": True,
            "models": rows,
        }
        for label, rows in sections.items()
        if rows
    ]
