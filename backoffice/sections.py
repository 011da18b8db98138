"""The tables on the admin's front page, by what people come for; the same order in every language."""

from typing import Any

from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

# By the names of models, which an installation may lack. A model that is named nowhere is the system's.
SYSTEM = "system"
FAILURES = "Failures"  # a page of the webhooks
NAMED_AS_THEIR_APP = {"otp_static", "otp_totp"}  # which backoffice/otp.py names by its purpose
SECTIONS: dict[str, tuple[str | Promise, list[str]]] = {
    "money": (_("Money"), ["Organization", "Payment", "BalanceLog", "Suspense", "Statement"]),
    "inbox": (
        _("Inbox"),
        [
            *("Webhook", FAILURES, "ConflictingDelivery", "RejectedDelivery", "IgnoredDelivery"),
            "UnrecognizedDelivery",
        ],
    ),
    "acts": (_("Operators' actions"), ["OperatorAction"]),
    "access": (_("Access"), ["ApiKey", "User", "Group", "TOTPDevice", "StaticDevice"]),
    SYSTEM: (_("System"), ["TaskResult", "Heartbeat", "Alert", "LedgerVerification"]),
}


def group_by_purpose(apps: list[Any]) -> list[dict[str, Any]]:
    """Django's list of apps with their models as a list of sections, in the same form."""
    models = {
        model["object_name"]: {**model, "name": app["name"]}
        if app["app_label"] in NAMED_AS_THEIR_APP
        else model
        for app in apps
        for model in app["models"]
    }
    if "Webhook" in models:
        url = reverse("admin:ingest_webhook_failures")
        models[FAILURES] = {"name": _("Failures by cause"), "object_name": FAILURES, "admin_url": url}
    named = {name for _heading, names in SECTIONS.values() for name in names}
    others = [name for name in models if name not in named]
    found = {
        label: [models[name] for name in [*names, *(others if label == SYSTEM else [])] if name in models]
        for label, (_heading, names) in SECTIONS.items()
    }
    return [
        {
            "name": SECTIONS[label][0],
            "app_label": label,
            "app_url": "",
            "has_module_perms": True,
            "models": shown,
        }
        for label, shown in found.items()
        if shown
    ]
