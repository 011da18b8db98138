"""One row for each table shown in the admin, and every URL of its pages."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db.models import Model
from django.urls import URLPattern, URLResolver
from django_celery_results.models import TaskResult
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from api.keys import issue
from ingest import inbox, operator_actions, version_storage
from ingest.models import (
    ConflictingDelivery,
    LedgerVerification,
    OperatorAction,
    SuspectedDuplicate,
    Webhook,
)
from ingest.versions import DELETED
from monitoring.models import Alert
from statements.importing import import_statement
from statements.matching import match
from statements.models import OwnAccount
from statements.rejecting import record_rejected
from tests.factories import SUSPENSE, make_webhook, payment_body, post_payments, terms
from tests.statements.files import OWN, document, section, statement
from worker.models import Heartbeat

_ARGUMENT = re.compile(r"<(?:\w+:)?(\w+)>")


def create_one_of_each() -> None:
    """Create one row per table. The webhook was applied, redelivered with other terms, replayed and failed.

    Needs a user, who is recorded as the operator.
    """
    payment = terms(328_17)
    post_payments(payment)
    post_payments(terms(7_00, inn=SUSPENSE))
    webhook = make_webhook(
        payment, status=Webhook.Status.FAILED, attempts=5, last_error="it broke", error_fingerprint="it broke"
    )
    other = payment_body(payment, amount="999.13", payer_inn="500100732259")
    ConflictingDelivery.objects.create(webhook=webhook, difference="amount_kopecks, inn", body=other)
    look_alike = make_webhook(terms(1_00), status=Webhook.Status.APPLIED)
    SuspectedDuplicate.objects.create(webhook=look_alike, first=webhook)
    operator_actions.create(OperatorAction.Kind.REPLAY, {webhook.pk}, User.objects.earliest("pk"), "repaired")
    inbox.record_rejected(inbox.Delivery(b'{"amount": "0"}'), "amount: must be greater than zero")
    inbox.record_unrecognized(
        inbox.Delivery(b'{"amount": "2"}', "tbank"), b'{"amount": "2"}', "typeOfOperation new"
    )
    version_storage.store(terms(5_00), DELETED, inbox.Delivery(b'{"amount": "5"}'))
    inbox.record_ignored(inbox.Delivery(b'{"amount": "1"}', "tbank"), "outgoing")
    create_bank_statements()
    LedgerVerification.objects.create(duration=timedelta(seconds=1), rows_scanned=3)
    TaskResult.objects.create(
        task_id=f"webhook-{webhook.pk}-1", status="FAILURE", traceback="ValueError: it broke"
    )
    now = datetime.now(UTC)
    Heartbeat.objects.create(name="worker@host", kind=Heartbeat.Kind.WORKER, processes=1, seen_at=now)
    Alert.objects.create(cause="stalled", severity=3, text="late", remedy="look", magnitude=1, started_at=now)
    issue("a program", "read:all")
    Group.objects.create(name="readers")
    owner = User.objects.create_user("owner", "owner@example.com")
    TOTPDevice.objects.create(user=owner, name="phone")
    StaticDevice.objects.create(user=owner, name="codes").token_set.create(token="abc")


def create_bank_statements() -> None:
    """Import a statement of an account with a line, and refuse a file."""
    OwnAccount.objects.create(number=OWN, since=date(2026, 1, 1))
    body = statement(section(), document(), ДатаСоздания="03.03.2026").encode("cp1251")
    import_statement(body, "выписка")
    record_rejected("не выписка", b"...", "not_1c: no statement", "not_1c", 1)
    match()


def registered_models() -> list[type[Model]]:
    return sorted(admin.site._registry, key=lambda model: model._meta.label)


def admin_routes() -> list[str]:
    """Return each route below /admin/, with its arguments as <name>; the catch-all route is left out."""
    return sorted({*_routes(admin.site.get_urls(), "/admin/"), "/admin/language/"})


def _routes(patterns: Any, prefix: str) -> Iterator[str]:
    for each in patterns:
        route = prefix + str(each.pattern).removesuffix("$").removeprefix("^")
        if isinstance(each, URLResolver):
            yield from _routes(each.url_patterns, route)
        elif isinstance(each, URLPattern) and "(?P<url>" not in route:
            yield re.sub(r"\(\?P<(\w+)>.*?\)", r"<\1>", route)


def fill_route(route: str, value: str) -> str:
    return _ARGUMENT.sub(lambda _: value, route)


def model_of_route(route: str) -> type[Model] | None:
    """Return the model to whose admin pages the route belongs."""
    return next(
        (
            model
            for model in registered_models()
            if route.startswith(f"/admin/{model._meta.app_label}/{model._meta.model_name}/")
        ),
        None,
    )
