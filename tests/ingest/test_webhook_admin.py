import re
from datetime import timedelta
from html import unescape
from uuid import uuid4

import pytest
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from core.admin import BoundedPaginator
from ingest import inbox
from ingest.admin import timeline
from ingest.models import (
    ConflictingDelivery,
    DuplicateDelivery,
    IgnoredDelivery,
    RejectedDelivery,
    UnrecognizedDelivery,
    Webhook,
)
from ledger.models import Payment
from ledger.money import format_rubles
from tests.admin_client import admin_url, changelist_rows, staff_client, superuser_client
from tests.factories import ROMASHKA, VASILEK, make_webhook, post_payments, terms
from tests.ingest.admin_pages import (
    APPLIED,
    DISMISSED,
    FAILED,
    RECEIVED,
    confirm,
    conflicting_with,
    failed,
    page_of,
    select,
    statuses,
)
from tests.markers import every_database, sqlite_run_only

pytestmark = [pytest.mark.django_db, sqlite_run_only]
SCRIPT = "<script>alert(1)</script>"
MODELS = [Webhook, RejectedDelivery, IgnoredDelivery, UnrecognizedDelivery, ConflictingDelivery]


@pytest.fixture
def admin_client() -> Client:
    return superuser_client()


# --- pages --------------------------------------------------------------------------------------------


def test_list_shows_status_and_error(admin_client: Client) -> None:
    webhook = make_webhook(terms(145_000_00), status=FAILED, attempts=4, last_error="x" * 500)

    content = admin_client.get(admin_url(Webhook, "changelist")).content.decode()

    for text in [str(webhook.operation_id), "failed", ROMASHKA, format_rubles(145_000_00), "PAY-328", ">4<"]:
        assert text in content
    assert "x" * 79 + "…" in content  # shortened


@every_database
def test_list_filters_by_status(admin_client: Client) -> None:
    webhook = failed()
    make_webhook()

    assert changelist_rows(admin_client, Webhook, status__exact="failed") == [str(webhook)]


@every_database
def test_search_finds_operation_id_in_any_format(admin_client: Client) -> None:
    webhook = make_webhook()
    make_webhook()

    assert changelist_rows(admin_client, Webhook, q=f" {{{str(webhook).upper()}}}") == [str(webhook)]
    assert changelist_rows(admin_client, Webhook, q="nonsense'") == []


@every_database
def test_search_finds_failed_and_dismissed_webhooks_by_inn(admin_client: Client) -> None:
    webhooks = [make_webhook(terms(), status=status) for status in [DISMISSED, FAILED, APPLIED, RECEIVED]]
    make_webhook(terms(inn=VASILEK), status=FAILED)

    assert changelist_rows(admin_client, Webhook, q=ROMASHKA) == [str(webhooks[1]), str(webhooks[0])]


def test_body_is_shown_indented_and_as_exact_bytes(
    admin_client: Client,
) -> None:
    webhook = make_webhook(body='{"amount":1.50,"amount":1e2,"note":"счёт"}'.encode())

    content = page_of(admin_client, webhook)

    indented = (
        "{\n  &quot;amount&quot;: 1.50,\n  &quot;amount&quot;: 1e2,\n  &quot;note&quot;: &quot;счёт&quot;\n}"
    )
    assert indented in content
    assert r"&quot;note&quot;:&quot;\xd1\x81\xd1\x87\xd1\x91\xd1\x82&quot;}" in content


@pytest.mark.parametrize(
    "raw", [b"", b"\xff\xfe", b"[" * 60_000, b'{"a":'], ids=["empty", "binary", "deep", "cut"]
)
def test_body_that_is_not_json_is_shown_as_exact_bytes(admin_client: Client, raw: bytes) -> None:
    inbox.record_rejected(inbox.Delivery(raw), "body: must be valid JSON")

    content = page_of(admin_client, RejectedDelivery.objects.get())

    assert "not JSON" in content
    assert repr(raw)[2:-1].replace('"', "&quot;") in content


def test_delivered_html_is_escaped(admin_client: Client) -> None:
    payment = terms(document_number=SCRIPT)
    webhook = make_webhook(payment, status=FAILED, last_error=SCRIPT)
    inbox.record_rejected(inbox.Delivery(SCRIPT.encode()), SCRIPT)
    conflict = conflicting_with(webhook, comment=SCRIPT)
    rejected = RejectedDelivery.objects.get()

    contents = [page_of(admin_client, row) for row in [webhook, rejected, conflict]]
    contents += [
        admin_client.get(admin_url(type(row), "changelist")).content.decode() for row in [webhook, rejected]
    ]
    contents.append(select(admin_client, webhook).content.decode())

    for content in contents:
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in content
        assert "<script>alert" not in content


@every_database
def test_webhook_page_counts_deliveries_and_links_conflicts(admin_client: Client) -> None:
    webhook = make_webhook()
    DuplicateDelivery.objects.bulk_create(DuplicateDelivery(webhook=webhook) for _ in range(2))
    conflict = conflicting_with(webhook)

    content = page_of(admin_client, webhook)

    assert "4: 1 stored, 2 duplicate, 1 conflicting" in content
    assert admin_url(ConflictingDelivery, "change", conflict.pk) in content
    assert ": other amount<" in content
    every = re.search(r'href="([^"]*)">all of them', content)
    assert every
    assert len(admin_client.get(every[1]).context["cl"].result_list) == 1


def test_webhook_page_links_its_payment(admin_client: Client) -> None:
    payment = terms()
    post_payments(payment)
    webhook = make_webhook(payment, status=APPLIED)

    assert admin_url(Payment, "change", Payment.objects.get().pk) in page_of(admin_client, webhook)


@every_database
def test_rejected_deliveries_show_reason_newest_first(admin_client: Client) -> None:
    inbox.record_rejected(inbox.Delivery(b"1"), "amount: is missing")
    inbox.record_rejected(inbox.Delivery(b"2"), "amount: must be greater than zero")

    assert changelist_rows(admin_client, RejectedDelivery) == [
        "amount: must be greater than zero",
        "amount: is missing",
    ]


@every_database
def test_search_finds_conflicting_deliveries_by_operation_id(admin_client: Client) -> None:
    webhook = make_webhook()
    conflicting_with(webhook)
    conflicting_with(make_webhook())

    assert changelist_rows(admin_client, ConflictingDelivery, q=str(webhook)) == ["other amount"]
    assert changelist_rows(admin_client, ConflictingDelivery, q="nonsense") == []


@pytest.mark.parametrize("model", MODELS)
def test_superuser_cannot_change_deliveries(admin_client: Client, model: type[Model]) -> None:
    inbox.record_rejected(inbox.Delivery(b"1"), "amount: is missing")
    inbox.record_ignored(inbox.Delivery(b"1", "tbank"), "outgoing")
    inbox.record_unrecognized(inbox.Delivery(b"1", "tbank"), b"1", "unknown")
    conflicting_with(failed())
    row = model.objects.get()
    before = model.objects.values().get()

    for url in [
        admin_url(model, "add"),
        admin_url(model, "change", row.pk),
        admin_url(model, "delete", row.pk),
    ]:
        assert admin_client.post(url, {"post": "yes", "status": "applied", "reason": "x"}).status_code == 403
    admin_client.post(
        admin_url(model, "changelist"),
        {"action": "delete_selected", "_selected_action": row.pk, "post": "yes"},
    )

    assert model.objects.values().get() == before


@every_database
@pytest.mark.parametrize("model", MODELS)
def test_list_runs_constant_queries_and_reads_no_body(admin_client: Client, model: type[Model]) -> None:
    def fill() -> None:
        inbox.record_rejected(inbox.Delivery(b"1"), "amount: is missing")
        inbox.record_ignored(inbox.Delivery(b"1", "tbank"), "outgoing")
        inbox.record_unrecognized(inbox.Delivery(b"1", "tbank"), uuid4().bytes, "unknown")
        conflicting_with(failed())

    fill()
    with CaptureQueriesContext(connection) as short:
        changelist_rows(admin_client, model)
    for _ in range(30):
        fill()
    with CaptureQueriesContext(connection) as long:
        changelist_rows(admin_client, model)

    assert len(long) == len(short) <= 7
    assert not [each["sql"] for each in long if re.search(r"\Wbody\W", each["sql"])]
    counts = [each["sql"] for each in long if "COUNT(" in each["sql"]]
    assert len(counts) == 1
    assert f"LIMIT {BoundedPaginator.rows_max})" in counts[0]


# --- failures by cause --------------------------------------------------------------------------------


@every_database
def test_failures_of_one_cause_are_grouped_and_replayed_together(admin_client: Client) -> None:
    for fingerprint in ["ValueError('# & #')"] * 3 + ["KeyError('x')"]:
        failed(error_fingerprint=fingerprint)

    content = admin_client.get("/admin/ingest/webhook/failures/").content.decode()

    causes = re.findall(r'href="([^"]*)">(\d+)</a></td>', content)
    assert [count for _, count in causes] == ["3", "1"]
    assert len(admin_client.get(unescape(causes[0][0])).context["cl"].result_list) == 3
    replay_all = re.search(r'href="([^"]*)">Replay all of these', content)
    assert replay_all
    assert confirm(admin_client, admin_client.get(unescape(replay_all[1]))) == ["3 done"]
    assert statuses() == [RECEIVED] * 3 + [FAILED]


def test_user_with_view_permission_sees_causes_without_buttons() -> None:
    failed(error_fingerprint="KeyError('x')")

    content = staff_client("view_webhook").get("/admin/ingest/webhook/failures/").content.decode()

    assert "KeyError(&#x27;x&#x27;)" in content
    assert "action/replay" not in content
    assert staff_client(name="boris").get("/admin/ingest/webhook/failures/").status_code == 403


# --- search -------------------------------------------------------------------------------------------


@every_database
@pytest.mark.parametrize("text", ["145 000,00 ₽", "145000.00", "145000", "145\u00a0000,00", "PAY-17"])
def test_search_finds_failed_webhooks_by_amount_and_document_number(admin_client: Client, text: str) -> None:
    payment = terms(145_000_00, document_number="PAY-17")
    webhook = make_webhook(payment, status=FAILED)
    failed()
    make_webhook(terms(145_000_00, document_number="PAY-17"))

    assert changelist_rows(admin_client, Webhook, q=text) == [str(webhook)]


@every_database
def test_search_by_inn_finds_applied_webhooks_through_the_ledger(admin_client: Client) -> None:
    payment = terms()
    post_payments(payment)
    applied = make_webhook(payment, status=APPLIED)
    broken = failed()
    failed_elsewhere = make_webhook(terms(inn=VASILEK), status=FAILED)

    assert changelist_rows(admin_client, Webhook, q=ROMASHKA) == [str(broken), str(applied)]
    assert changelist_rows(admin_client, Webhook, q=VASILEK) == [str(failed_elsewhere)]


@every_database
def test_list_filters_by_time_of_receipt(admin_client: Client) -> None:
    now = timezone.now()
    ages = [timedelta(days=8), timedelta(days=3), timedelta(hours=3), timedelta(minutes=3)]
    webhooks = [make_webhook(received_at=now - age) for age in ages]

    found = {
        period: len(changelist_rows(admin_client, Webhook, received=period))
        for period in ("hour", "day", "week")
    }

    assert found == {"hour": 1, "day": 2, "week": 3}
    assert changelist_rows(admin_client, Webhook, received="hour") == [str(webhooks[-1])]


# --- timeline -----------------------------------------------------------------------------------------


def test_timeline_shows_the_latest_of_many_duplicates(admin_client: Client) -> None:
    webhook = make_webhook()
    DuplicateDelivery.objects.bulk_create(
        DuplicateDelivery(webhook=webhook) for _ in range(timeline.SHOWN_MAX + 2)
    )

    content = page_of(admin_client, webhook)

    assert content.count("Duplicate delivery, same content") == timeline.SHOWN_MAX
    shown, all_ = timeline.SHOWN_MAX, timeline.SHOWN_MAX + 2
    assert f"These are the latest {shown} of {all_} duplicate deliveries." in content


def test_timeline_of_a_merged_webhook_says_that_nothing_more_is_posted(admin_client: Client) -> None:
    webhook = make_webhook(status=Webhook.Status.MERGED)

    assert "Merged into the payment that was posted from a bank statement" in page_of(admin_client, webhook)


@every_database
def test_timeline_is_in_chronological_order(admin_client: Client) -> None:
    payment = terms(145_000_00)
    post_payments(terms(100_00))
    webhook = make_webhook(payment, status=FAILED, last_error="it broke")
    DuplicateDelivery.objects.create(webhook=webhook)
    conflicting_with(webhook, amount="7")
    confirm(admin_client, select(admin_client, webhook))
    post_payments(payment)
    Webhook.objects.filter(pk=webhook.pk).update(status=APPLIED)

    content = page_of(admin_client, webhook)

    titles = ["First delivery", "same content", "different content", "Replay: done", "posted to the ledger"]
    places = [content.index(words) for words in titles]
    assert places == sorted(places)
    balance = f"from {format_rubles(100_00)} to {format_rubles(145_100_00)}"
    assert balance in content
    assert f"<td>{format_rubles(7_00)} ≠</td>" in content
    assert "style=" not in content
