import re
from datetime import timedelta
from html import unescape

import pytest
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from core.db import clock
from ingest.models import (
    ConflictingDelivery,
    LedgerVerification,
    RejectedDelivery,
    UnrecognizedDelivery,
    Webhook,
)
from ledger.models import Payment
from monitoring import dashboard
from monitoring.format_duration import format_duration
from monitoring.models import Alert
from monitoring.problems import Severity
from tests.admin_client import staff_client, superuser_client
from tests.corruption import without_triggers
from tests.factories import ROMASHKA, make_webhook, post_payments, terms
from worker import applying
from worker.heartbeats import record_heartbeat
from worker.models import Heartbeat

pytestmark = pytest.mark.django_db
FAILED, APPLIED = Webhook.Status.FAILED, Webhook.Status.APPLIED


@pytest.fixture
def admin_client() -> Client:
    return superuser_client()


@pytest.fixture
def alive() -> None:
    record_heartbeat(Heartbeat.Kind.WORKER, "worker-8000@one", 2)
    record_heartbeat(Heartbeat.Kind.SCHEDULER, "beat-8000@one", 1)


@pytest.fixture
def verified() -> None:
    verification()


def verification(drift: str = "", **ago: float) -> None:
    LedgerVerification.objects.create(
        duration=timedelta(seconds=3),
        rows_scanned=24_000,
        drift=drift,
        ended_at=timezone.now() - timedelta(**ago),
    )


def shown(browser: Client) -> str:
    answer = browser.get("/admin/")
    assert answer.status_code == 200
    return unescape(answer.content.decode()).replace("\N{NO-BREAK SPACE}", " ")


def verdict(page: str) -> tuple[str, str, str]:
    """Level, heading and sentence."""
    found = re.search(r'<section class="verdict (\w+)">\s*<h1>([^<]*)</h1>\s*<p>([^<]*)</p>', page)
    assert found, page
    return found[1], found[2], found[3]


def troubles(page: str) -> list[tuple[str, str]]:
    block = re.search(r'<ul class="troubles">.*?</ul>', page, re.DOTALL)
    return re.findall(r'<li class="(\w+)"><a href="[^"]*">([^<]*)</a>', block[0]) if block else []


def tile(page: str, label: str) -> tuple[str, str]:
    """Where it leads, and its value."""
    pattern = rf'<a href="([^"]*)">\s*<span class="label">{label}</span>\s*<span class="value">([^<]*)</span>'
    found = re.search(pattern, page)
    assert found, label
    return found[1], found[2]


@pytest.mark.usefixtures("alive", "verified")
def test_a_house_in_order_has_nothing_to_say_but_that(admin_client: Client) -> None:
    assert troubles(shown(admin_client)) == []
    assert verdict(shown(admin_client)) == ("info", "All is quiet", "No webhook yet; nothing waits.")


@pytest.mark.usefixtures("alive", "verified")
def test_money_that_flows(admin_client: Client) -> None:
    told = terms()
    make_webhook(told, status=APPLIED, applied_at=clock.database_now())
    post_payments(told)

    assert verdict(shown(admin_client)) == (
        "ok",
        "Processing normally",
        "1 applied in the last 5 minutes; nothing waits.",
    )


@pytest.mark.usefixtures("alive", "verified")
def test_money_that_flowed_before(admin_client: Client) -> None:
    make_webhook(
        status=APPLIED, received_at=clock.database_now() - timedelta(hours=3), applied_at=clock.database_now()
    )

    assert verdict(shown(admin_client)) == ("info", "All is quiet", "No new webhook for 3 h; nothing waits.")


@pytest.mark.usefixtures("alive", "verified")
def test_money_that_is_stuck(admin_client: Client) -> None:
    make_webhook(received_at=clock.database_now() - timedelta(minutes=4))

    assert verdict(shown(admin_client)) == (
        "critical",
        "Processing stalled",
        "Nothing applied in the last 5 minutes; 1 waiting, the oldest for 4 min.",
    )


@pytest.mark.django_db(transaction=True)  # a connection that has failed is closed
@pytest.mark.usefixtures("alive", "verified")
def test_a_posting_that_fails_is_red_before_a_webhook_is_late(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def post(*_: object) -> None:
        raise OperationalError(1054, "Unknown column 'document_date'")

    monkeypatch.setattr(applying, "post", post)
    assert troubles(shown(admin_client)) == []  # nothing waits
    make_webhook(received_at=clock.database_now() - timedelta(seconds=10))

    page = shown(admin_client)
    assert verdict(page)[0] == "critical"
    assert troubles(page) == [("critical", "No webhook can be applied: Unknown column 'document_date'")]


@pytest.mark.usefixtures("alive", "verified")
def test_money_that_is_late(admin_client: Client) -> None:
    make_webhook(received_at=clock.database_now() - timedelta(minutes=4))
    post_payments(terms())

    level, heading, sentence = verdict(shown(admin_client))
    assert (level, heading) == ("warning", "Processing delayed")
    assert sentence == "1 applied in the last 5 minutes; 1 waiting, the oldest for 4 min."


@pytest.mark.usefixtures("alive", "verified")
def test_an_alert_adds_only_what_no_row_tells_of(admin_client: Client) -> None:
    """Of the rest the rows say at once that it is over, and the next look only says it again."""
    for cause, text in (
        ("failed", "1 webhook has failed"),
        ("broker_unreachable", "The broker does not answer"),
    ):
        Alert.objects.create(
            cause=cause,
            text=text,
            level=2,
            size=1,
            started_at=clock.database_now(),
            notified_at=clock.database_now(),
        )

    assert troubles(shown(admin_client)) == [("warning", "The broker does not answer")]


@pytest.mark.usefixtures("alive", "verified")
def test_what_is_bad_and_only_an_alert_knows_is_red(admin_client: Client) -> None:
    Alert.objects.create(
        cause="refused",
        text="No room",
        level=Severity.CRITICAL,
        size=1,
        started_at=clock.database_now(),
        notified_at=clock.database_now(),
    )

    page = shown(admin_client)
    assert verdict(page)[0] == "critical"
    assert troubles(page) == [("critical", "No room")]


@pytest.mark.usefixtures("verified")
def test_a_house_without_workers(admin_client: Client) -> None:
    page = shown(admin_client)
    assert verdict(page)[0] == "critical"
    assert troubles(page) == [
        ("critical", "No worker is known to run"),
        ("critical", "No scheduler is known to run"),
    ]


@pytest.mark.usefixtures("alive", "verified")
def test_one_of_two_workers_falls_silent(admin_client: Client) -> None:
    record_heartbeat(Heartbeat.Kind.WORKER, "worker-8000@two", 2)
    Heartbeat.objects.filter(name="worker-8000@two").update(
        seen_at=clock.database_now() - timedelta(minutes=10)
    )

    assert troubles(shown(admin_client)) == [("warning", "Silent worker: worker-8000@two")]

    Heartbeat.objects.filter(kind=Heartbeat.Kind.WORKER).update(
        seen_at=clock.database_now() - timedelta(minutes=10)
    )
    assert troubles(shown(admin_client)) == [("critical", "No worker has been heard of for 10 min")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("alive")
def test_books_that_were_not_verified(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "The books were not verified for {}"
    assert troubles(shown(admin_client)) == []
    assert (
        "The scheduler verifies the books every night, next on"
        in admin_client.get("/admin/").content.decode()
    )

    now = timezone.now()
    post_payments(terms())
    with without_triggers(Payment):
        Payment.objects.update(created_at=now - timedelta(hours=25))
    assert troubles(shown(admin_client)) == []
    with monkeypatch.context() as patch:
        patch.setattr(clock, "database_now", lambda: now + timedelta(hours=2))
        assert ("warning", words.format("27 h")) in troubles(shown(admin_client))

    verification(days=3)
    assert troubles(shown(admin_client)) == [("warning", words.format("3 days"))]

    verification(days=1)
    assert troubles(shown(admin_client)) == []


@pytest.mark.usefixtures("alive")
def test_drift_is_red_whatever_flows(admin_client: Client) -> None:
    verification(drift=f"organization {ROMASHKA}: <b>the balance")
    post_payments(terms())

    page = shown(admin_client)
    assert verdict(page)[:2] == ("critical", "Processing normally")
    answer = admin_client.get("/admin/").content.decode()
    assert "The last verification found drift" in answer
    assert "<b>the balance" not in answer


@pytest.mark.usefixtures("alive", "verified")
def test_each_figure_leads_to_the_rows_behind_it(admin_client: Client) -> None:
    queued = make_webhook()
    failed = make_webhook(status=FAILED)
    done = make_webhook(status=APPLIED, applied_at=clock.database_now())
    conflict, _ = (
        ConflictingDelivery.objects.create(webhook=done, difference="inn", body=b"{}", resolved_by_id=action)
        for action in (None, 1)
    )
    rejected = RejectedDelivery.objects.create(reason="amount: missing", body=b"{}")
    unrecognized = UnrecognizedDelivery.objects.create(reason="currency: 'X' is not known", body=b"{}")
    UnrecognizedDelivery.objects.create(reason="closed", body=b"{}", digest="1", outcome="dismissed")
    old = timezone.now() - timedelta(days=2)
    UnrecognizedDelivery.objects.update(received_at=old)
    RejectedDelivery.objects.create(reason="amount: missing", body=b"{}", received_at=old)
    page = shown(admin_client)

    for label, value, rows in [
        ("Backlog", "1", [queued]),
        ("Failed", "1", [failed]),
        ("Delay, median", None, [done]),
        ("Conflicts", "1", [conflict]),
        ("Unrecognized", "1", [unrecognized]),
        ("Rejected", "1", [rejected]),
        ("Received", "3", [done, failed, queued]),
    ]:
        url, told = tile(page, label)
        assert value is None or told == value, label
        assert list(admin_client.get(url).context["cl"].result_list) == rows, label
    assert tile(page, "Oldest waiting")[0] == f"/admin/ingest/webhook/{queued.pk}/change/"


@pytest.mark.usefixtures("alive", "verified")
def test_the_charts_lead_to_the_rows_of_their_time(admin_client: Client) -> None:
    before = make_webhook(received_at=clock.database_now() - timedelta(hours=3))
    within = make_webhook()
    post_payments(terms())

    urls = re.findall(r'<a class="(received|applied)" href="([^"]*)"><b>([^<]*)</b>', shown(admin_client))

    lists = [list(admin_client.get(url).context["cl"].result_list) for _, url, _ in urls]
    assert [kind for kind, _, _ in urls] == ["received", "applied"] * 2
    assert lists[0] == [within]
    assert lists[2] == [within, before]
    assert [len(rows) for rows in (lists[1], lists[3])] == [1, 1]


def test_the_page_reads_itself_anew_and_holds_nothing_a_strict_policy_forbids(admin_client: Client) -> None:
    answer = admin_client.get("/admin/").content.decode()
    ours = answer[answer.index('<div class="flow-board">') :]

    assert '<meta http-equiv="refresh" content="15">' in answer
    assert 'href="/static/monitoring/dashboard.css"' in answer
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=", ours[: ours.index("app-money")])


def test_the_list_of_tables_stays_below(admin_client: Client) -> None:
    page = shown(admin_client)
    assert page.index("flow-board") < page.index('href="/admin/ingest/webhook/"', page.index("app-inbox"))


def test_whoever_may_not_see_webhooks_sees_djangos_page_only() -> None:
    page = shown(staff_client("view_organization"))

    assert "flow-board" not in page
    assert "refresh" not in page
    assert "Site administration" in page
    assert "flow-board" in shown(staff_client("view_webhook", name="ivan"))


def test_a_stranger_has_to_log_in() -> None:
    assert Client().get("/admin/").status_code == 302


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.045, "45 ms"),
        (3.21, "3.2 s"),
        (45, "45 s"),
        (119, "119 s"),
        (240, "4 min"),
        (3 * 3600, "3 h"),
        (5 * 86400, "5 days"),
    ],
)
def test_a_duration_is_told_in_one_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_refreshing_page_is_read_again_before_a_beat_is_missed() -> None:
    assert timedelta(seconds=dashboard.REFRESH_SECONDS) < timedelta(minutes=1)
