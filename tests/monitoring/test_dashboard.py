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
    SuspectedDuplicate,
    UnrecognizedDelivery,
    Webhook,
)
from ledger.models import Payment
from monitoring import dashboard
from monitoring.format_duration import format_duration
from monitoring.models import Alert
from monitoring.problem import Severity
from tests.admin_client import staff_client, superuser_client
from tests.corruption import without_triggers
from tests.factories import ROMASHKA, make_webhook, post_payments, terms
from tests.markers import every_database, sqlite_run_only
from worker import applying
from worker.heartbeats import record_heartbeat
from worker.models import Heartbeat

pytestmark = [pytest.mark.django_db, sqlite_run_only]
FAILED, APPLIED = Webhook.Status.FAILED, Webhook.Status.APPLIED


@pytest.fixture
def admin_client() -> Client:
    return superuser_client()


@pytest.fixture
def running() -> None:
    record_heartbeat(Heartbeat.Kind.WORKER, "worker-8000@one", 2)
    record_heartbeat(Heartbeat.Kind.SCHEDULER, "scheduler-8000@one", 1)


@pytest.fixture
def verified() -> None:
    create_verification()


def create_verification(drift: str = "", **ago: float) -> None:
    LedgerVerification.objects.create(
        duration=timedelta(seconds=3),
        rows_scanned=24_000,
        drift=drift,
        ended_at=timezone.now() - timedelta(**ago),
    )


def front_page(client: Client) -> str:
    response = client.get("/admin/")
    assert response.status_code == 200
    return unescape(response.content.decode()).replace("\N{NO-BREAK SPACE}", " ")


def headline(page: str) -> tuple[str, str, str]:
    """Return severity, heading and sentence."""
    found = re.search(r'<section class="headline (\w+)">\s*<h1>([^<]*)</h1>\s*<p>([^<]*)</p>', page)
    assert found, page
    return found[1], found[2], found[3]


def problems(page: str) -> list[tuple[str, str]]:
    """Return severity and text of each listed problem."""
    block = re.search(r'<ul class="problems">.*?</ul>', page, re.DOTALL)
    return re.findall(r'<li class="(\w+)"><a href="[^"]*">([^<]*)</a>', block[0]) if block else []


def tile(page: str, label: str) -> tuple[str, str]:
    """Return the tile's link and value."""
    pattern = rf'<a href="([^"]*)">\s*<span class="label">{label}</span>\s*<span class="value">([^<]*)</span>'
    found = re.search(pattern, page)
    assert found, label
    return found[1], found[2]


@pytest.mark.usefixtures("running", "verified")
def test_idle_system_has_no_problems(admin_client: Client) -> None:
    assert problems(front_page(admin_client)) == []
    assert headline(front_page(admin_client)) == ("info", "Idle", "No webhook yet; nothing pending.")


@pytest.mark.usefixtures("running", "verified")
def test_headline_after_a_payment_is_ok(admin_client: Client) -> None:
    payment = terms()
    make_webhook(payment, status=APPLIED, applied_at=clock.database_now())
    post_payments(payment)

    assert headline(front_page(admin_client)) == (
        "ok",
        "Processing normally",
        "1 applied in the last 5 minutes; nothing pending.",
    )


@pytest.mark.usefixtures("running", "verified")
def test_headline_of_an_idle_system_has_the_time_since_the_last_webhook(admin_client: Client) -> None:
    now = clock.database_now()
    make_webhook(status=APPLIED, received_at=now - timedelta(hours=3), applied_at=now)

    assert headline(front_page(admin_client)) == (
        "info",
        "Idle",
        "No new webhook for 3 h; nothing pending.",
    )


@every_database
@pytest.mark.usefixtures("running", "verified")
def test_headline_of_stalled_processing_is_critical(admin_client: Client) -> None:
    make_webhook(received_at=clock.database_now() - timedelta(minutes=4))

    assert headline(front_page(admin_client)) == (
        "critical",
        "Processing stalled",
        "Nothing applied in the last 5 minutes; 1 pending, the oldest for 4 min.",
    )


@every_database
@pytest.mark.django_db(transaction=True)  # a connection that has failed is closed
@pytest.mark.usefixtures("running", "verified")
def test_failing_posting_is_critical_before_a_webhook_is_delayed(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def post(*_: object) -> None:
        raise OperationalError(1054, "Unknown column 'document_date'")

    monkeypatch.setattr(applying, "post", post)
    assert problems(front_page(admin_client)) == []  # nothing is pending
    make_webhook(received_at=clock.database_now() - timedelta(seconds=10))

    page = front_page(admin_client)
    assert headline(page)[0] == "critical"
    assert problems(page) == [("critical", "No webhook can be applied: Unknown column 'document_date'")]


@every_database
@pytest.mark.usefixtures("running", "verified")
def test_headline_of_delayed_processing_is_a_warning(admin_client: Client) -> None:
    make_webhook(received_at=clock.database_now() - timedelta(minutes=4))
    post_payments(terms())

    severity, heading, sentence = headline(front_page(admin_client))
    assert (severity, heading) == ("warning", "Processing delayed")
    assert sentence == "1 applied in the last 5 minutes; 1 pending, the oldest for 4 min."


@pytest.mark.usefixtures("running", "verified")
def test_alerts_add_only_problems_of_servers(admin_client: Client) -> None:
    """The rows show at once that any other problem is resolved; its alert needs further checks."""
    for cause, text in (
        ("failed", "1 webhook has failed"),
        ("broker_unreachable", "The broker does not respond"),
    ):
        create_alert(cause, text, Severity.WARNING)

    assert problems(front_page(admin_client)) == [("warning", "The broker does not respond")]


@pytest.mark.usefixtures("running", "verified")
def test_critical_problem_of_a_server_makes_the_headline_critical(admin_client: Client) -> None:
    create_alert("inbox_write_failed", "No space left", Severity.CRITICAL)

    page = front_page(admin_client)
    assert headline(page)[0] == "critical"
    assert problems(page) == [("critical", "No space left")]


def create_alert(cause: str, text: str, severity: Severity) -> None:
    now = clock.database_now()
    Alert.objects.create(
        cause=cause, text=text, severity=severity, magnitude=1, started_at=now, notified_at=now
    )


@pytest.mark.usefixtures("verified")
def test_missing_worker_and_scheduler_are_critical(admin_client: Client) -> None:
    page = front_page(admin_client)
    assert headline(page)[0] == "critical"
    assert problems(page) == [
        ("critical", "No worker is running"),
        ("critical", "No scheduler is running"),
    ]


@pytest.mark.usefixtures("running", "verified")
def test_one_stale_worker_is_a_warning_and_all_stale_are_critical(admin_client: Client) -> None:
    record_heartbeat(Heartbeat.Kind.WORKER, "worker-8000@two", 2)
    old = clock.database_now() - timedelta(minutes=10)
    Heartbeat.objects.filter(name="worker-8000@two").update(seen_at=old)

    assert problems(front_page(admin_client)) == [("warning", "Worker without heartbeat: worker-8000@two")]

    Heartbeat.objects.filter(kind=Heartbeat.Kind.WORKER).update(seen_at=old)
    assert problems(front_page(admin_client)) == [("critical", "No worker heartbeat for 10 min")]


@every_database
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("running")
def test_overdue_verification_is_a_warning(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "The ledger has not been verified for {}"
    assert problems(front_page(admin_client)) == []
    next_run = "The scheduler verifies the ledger every night, next on"
    assert next_run in admin_client.get("/admin/").content.decode()

    now = timezone.now()
    post_payments(terms())
    with without_triggers(Payment):
        Payment.objects.update(created_at=now - timedelta(hours=25))
    assert problems(front_page(admin_client)) == []
    with monkeypatch.context() as patch:
        patch.setattr(clock, "database_now", lambda: now + timedelta(hours=2))
        assert ("warning", text.format("27 h")) in problems(front_page(admin_client))

    create_verification(days=3)
    assert problems(front_page(admin_client)) == [("warning", text.format("3 days"))]

    create_verification(days=1)
    assert problems(front_page(admin_client)) == []


@pytest.mark.usefixtures("running")
def test_drift_is_critical_while_payments_are_processed(admin_client: Client) -> None:
    create_verification(drift=f"organization {ROMASHKA}: <b>the balance")
    post_payments(terms())

    assert headline(front_page(admin_client))[:2] == ("critical", "Processing normally")
    html = admin_client.get("/admin/").content.decode()
    assert "The last verification found drift" in html
    assert "<b>the balance" not in html


@every_database
@pytest.mark.usefixtures("running", "verified")
def test_each_figure_links_to_its_rows(admin_client: Client) -> None:
    queued = make_webhook()
    failed = make_webhook(status=FAILED)
    applied = make_webhook(status=APPLIED, applied_at=clock.database_now())
    conflict, _ = (
        ConflictingDelivery.objects.create(
            webhook=applied, difference="inn", body=b"{}", resolved_by_id=action
        )
        for action in (None, 1)
    )
    rejected = RejectedDelivery.objects.create(reason="amount: missing", body=b"{}")
    unrecognized = UnrecognizedDelivery.objects.create(reason="currency: 'X' is not known", body=b"{}")
    UnrecognizedDelivery.objects.create(reason="closed", body=b"{}", digest="1", outcome="dismissed")
    old = timezone.now() - timedelta(days=2)
    UnrecognizedDelivery.objects.update(received_at=old)
    RejectedDelivery.objects.create(reason="amount: missing", body=b"{}", received_at=old)
    suspected = SuspectedDuplicate.objects.create(webhook=queued, first=applied)
    SuspectedDuplicate.objects.create(webhook=failed, first=applied, state="cleared")
    page = front_page(admin_client)

    for label, value, rows in [
        ("Backlog", "1", [queued]),
        ("Failed", "1", [failed]),
        ("Latency, median", None, [applied]),
        ("Conflicts", "1", [conflict]),
        ("Unrecognized", "1", [unrecognized]),
        ("Suspected duplicates", "1", [suspected]),
        ("Rejected", "1", [rejected]),
        ("Received", "3", [applied, failed, queued]),
    ]:
        url, displayed = tile(page, label)
        assert value is None or displayed == value, label
        assert list(admin_client.get(url).context["cl"].result_list) == rows, label
    assert tile(page, "Oldest pending")[0] == f"/admin/ingest/webhook/{queued.pk}/change/"


@every_database
@pytest.mark.usefixtures("running", "verified")
def test_charts_link_to_the_rows_of_their_period(admin_client: Client) -> None:
    before = make_webhook(received_at=clock.database_now() - timedelta(hours=3))
    within = make_webhook()
    post_payments(terms())

    page = front_page(admin_client)
    urls = re.findall(r'<a class="(received|applied)" href="([^"]*)"><b>([^<]*)</b>', page)

    lists = [list(admin_client.get(url).context["cl"].result_list) for _, url, _ in urls]
    assert [kind for kind, _, _ in urls] == ["received", "applied"] * 2
    assert lists[0] == [within]
    assert lists[2] == [within, before]
    assert [len(rows) for rows in (lists[1], lists[3])] == [1, 1]


def test_page_refreshes_and_complies_with_a_strict_content_security_policy(admin_client: Client) -> None:
    html = admin_client.get("/admin/").content.decode()
    board = html[html.index('<div class="flow-board">') :]

    assert '<meta http-equiv="refresh" content="15">' in html
    assert 'href="/static/monitoring/dashboard.css"' in html
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=", board[: board.index("app-money")])


def test_list_of_tables_is_below_the_dashboard(admin_client: Client) -> None:
    page = front_page(admin_client)
    assert page.index("flow-board") < page.index('href="/admin/ingest/webhook/"', page.index("app-inbox"))


def test_dashboard_requires_permission_to_view_webhooks() -> None:
    page = front_page(staff_client("view_organization"))

    assert "flow-board" not in page
    assert "refresh" not in page
    assert "Site administration" in page
    assert "flow-board" in front_page(staff_client("view_webhook", name="ivan"))


def test_anonymous_user_is_redirected_to_the_login() -> None:
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
def test_duration_is_formatted_in_one_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_page_refreshes_more_often_than_processes_expire() -> None:
    assert timedelta(seconds=dashboard.REFRESH_SECONDS) < timedelta(minutes=1)
