import re
from datetime import timedelta
from html import unescape

import pytest
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from ingest.models import (
    ConflictingDelivery,
    RejectedDelivery,
    UnrecognizedDelivery,
    Verification,
    Webhook,
)
from ledger.models import Payment
from monitoring import dashboard
from monitoring.dashboard import duration
from monitoring.models import Alert
from monitoring.troubles import Level
from tests.browsers import staff, superuser
from tests.cast import ROMASHKA, posted, received, terms
from tests.planting import unguarded
from worker import applying, clock
from worker.beats import beat
from worker.models import Beat

pytestmark = pytest.mark.django_db
FAILED, APPLIED = Webhook.Status.FAILED, Webhook.Status.APPLIED


@pytest.fixture
def boss() -> Client:
    return superuser()


@pytest.fixture
def alive() -> None:
    beat(Beat.Kind.WORKER, "worker-8000@one", 2)
    beat(Beat.Kind.SCHEDULER, "beat-8000@one", 1)


@pytest.fixture
def verified() -> None:
    verification()


def verification(drift: str = "", **ago: float) -> None:
    Verification.objects.create(
        took=timedelta(seconds=3),
        rows_looked_at=24_000,
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
def test_a_house_in_order_has_nothing_to_say_but_that(boss: Client) -> None:
    assert troubles(shown(boss)) == []
    assert verdict(shown(boss)) == ("quiet", "All is quiet", "No webhook yet; nothing waits.")


@pytest.mark.usefixtures("alive", "verified")
def test_money_that_flows(boss: Client) -> None:
    told = terms()
    received(told, status=APPLIED, applied_at=clock.now())
    posted(told)

    assert verdict(shown(boss)) == (
        "good",
        "Money is flowing",
        "1 applied in the last 5 minutes; nothing waits.",
    )


@pytest.mark.usefixtures("alive", "verified")
def test_money_that_flowed_before(boss: Client) -> None:
    received(status=APPLIED, received_at=clock.now() - timedelta(hours=3), applied_at=clock.now())

    assert verdict(shown(boss)) == ("quiet", "All is quiet", "No new webhook for 3 h; nothing waits.")


@pytest.mark.usefixtures("alive", "verified")
def test_money_that_is_stuck(boss: Client) -> None:
    received(received_at=clock.now() - timedelta(minutes=4))

    assert verdict(shown(boss)) == (
        "bad",
        "Money is stuck",
        "Nothing applied in the last 5 minutes; 1 waiting, the oldest for 4 min.",
    )


@pytest.mark.django_db(transaction=True)  # a connection that has failed is closed
@pytest.mark.usefixtures("alive", "verified")
def test_a_posting_that_fails_is_red_before_a_webhook_is_late(
    boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def post(*_: object) -> None:
        raise OperationalError(1054, "Unknown column 'document_date'")

    monkeypatch.setattr(applying, "post", post)
    assert troubles(shown(boss)) == []  # nothing waits
    received(received_at=clock.now() - timedelta(seconds=10))

    page = shown(boss)
    assert verdict(page)[0] == "bad"
    assert troubles(page) == [("bad", "No webhook can be applied: Unknown column 'document_date'")]


@pytest.mark.usefixtures("alive", "verified")
def test_money_that_is_late(boss: Client) -> None:
    received(received_at=clock.now() - timedelta(minutes=4))
    posted(terms())

    level, heading, sentence = verdict(shown(boss))
    assert (level, heading) == ("warning", "Money is late")
    assert sentence == "1 applied in the last 5 minutes; 1 waiting, the oldest for 4 min."


@pytest.mark.usefixtures("alive", "verified")
def test_an_alert_adds_only_what_no_row_tells_of(boss: Client) -> None:
    """Of the rest the rows say at once that it is over, and the next look only says it again."""
    for cause, text in (("failed", "1 webhook has failed"), ("no broker", "The broker does not answer")):
        Alert.objects.create(
            cause=cause, text=text, level=2, size=1, began_at=clock.now(), told_at=clock.now()
        )

    assert troubles(shown(boss)) == [("warning", "The broker does not answer")]


@pytest.mark.usefixtures("alive", "verified")
def test_what_is_bad_and_only_an_alert_knows_is_red(boss: Client) -> None:
    Alert.objects.create(
        cause="refused", text="No room", level=Level.BAD, size=1, began_at=clock.now(), told_at=clock.now()
    )

    page = shown(boss)
    assert verdict(page)[0] == "bad"
    assert troubles(page) == [("bad", "No room")]


@pytest.mark.usefixtures("verified")
def test_a_house_without_workers(boss: Client) -> None:
    page = shown(boss)
    assert verdict(page)[0] == "bad"
    assert troubles(page) == [
        ("bad", "No worker is known to run"),
        ("bad", "No scheduler is known to run"),
    ]


@pytest.mark.usefixtures("alive", "verified")
def test_one_of_two_workers_falls_silent(boss: Client) -> None:
    beat(Beat.Kind.WORKER, "worker-8000@two", 2)
    Beat.objects.filter(name="worker-8000@two").update(seen_at=clock.now() - timedelta(minutes=10))

    assert troubles(shown(boss)) == [("warning", "Silent worker: worker-8000@two")]

    Beat.objects.filter(kind=Beat.Kind.WORKER).update(seen_at=clock.now() - timedelta(minutes=10))
    assert troubles(shown(boss)) == [("bad", "No worker has been heard of for 10 min")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("alive")
def test_books_that_were_not_verified(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "The books were not verified for {}"
    assert troubles(shown(boss)) == []
    assert "The scheduler verifies the books every night, next on" in boss.get("/admin/").content.decode()

    now = timezone.now()
    posted(terms())
    with unguarded(Payment):
        Payment.objects.update(created_at=now - timedelta(hours=25))
    assert troubles(shown(boss)) == []
    with monkeypatch.context() as patch:
        patch.setattr(clock, "now", lambda: now + timedelta(hours=2))
        assert ("warning", words.format("27 h")) in troubles(shown(boss))

    verification(days=3)
    assert troubles(shown(boss)) == [("warning", words.format("3 days"))]

    verification(days=1)
    assert troubles(shown(boss)) == []


@pytest.mark.usefixtures("alive")
def test_drift_is_red_whatever_flows(boss: Client) -> None:
    verification(drift=f"organization {ROMASHKA}: <b>the balance")
    posted(terms())

    page = shown(boss)
    assert verdict(page)[:2] == ("bad", "Money is flowing")
    answer = boss.get("/admin/").content.decode()
    assert "The last verification found drift" in answer
    assert "<b>the balance" not in answer


@pytest.mark.usefixtures("alive", "verified")
def test_each_figure_leads_to_the_rows_behind_it(boss: Client) -> None:
    queued = received()
    failed = received(status=FAILED)
    done = received(status=APPLIED, applied_at=clock.now())
    conflict, _ = (
        ConflictingDelivery.objects.create(webhook=done, difference="inn", body=b"{}", resolved_in_id=act)
        for act in (None, 1)
    )
    rejected = RejectedDelivery.objects.create(reason="amount: missing", body=b"{}")
    unrecognized = UnrecognizedDelivery.objects.create(reason="currency: 'X' is not known", body=b"{}")
    UnrecognizedDelivery.objects.create(reason="closed", body=b"{}", digest="1", outcome="dismissed")
    old = timezone.now() - timedelta(days=2)
    UnrecognizedDelivery.objects.update(received_at=old)
    RejectedDelivery.objects.create(reason="amount: missing", body=b"{}", received_at=old)
    page = shown(boss)

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
        assert list(boss.get(url).context["cl"].result_list) == rows, label
    assert tile(page, "Oldest waiting")[0] == f"/admin/ingest/webhook/{queued.pk}/change/"


@pytest.mark.usefixtures("alive", "verified")
def test_the_charts_lead_to_the_rows_of_their_time(boss: Client) -> None:
    before = received(received_at=clock.now() - timedelta(hours=3))
    within = received()
    posted(terms())

    urls = re.findall(r'<a class="(received|applied)" href="([^"]*)"><b>([^<]*)</b>', shown(boss))

    lists = [list(boss.get(url).context["cl"].result_list) for _, url, _ in urls]
    assert [kind for kind, _, _ in urls] == ["received", "applied"] * 2
    assert lists[0] == [within]
    assert lists[2] == [within, before]
    assert [len(rows) for rows in (lists[1], lists[3])] == [1, 1]


def test_the_page_reads_itself_anew_and_holds_nothing_a_strict_policy_forbids(boss: Client) -> None:
    answer = boss.get("/admin/").content.decode()
    ours = answer[answer.index('<div class="flow-board">') :]

    assert '<meta http-equiv="refresh" content="15">' in answer
    assert 'href="/static/monitoring/dashboard.css"' in answer
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=", ours[: ours.index("app-money")])


def test_the_list_of_tables_stays_below(boss: Client) -> None:
    page = shown(boss)
    assert page.index("flow-board") < page.index('href="/admin/ingest/webhook/"', page.index("app-inbox"))


def test_whoever_may_not_see_webhooks_sees_djangos_page_only() -> None:
    page = shown(staff("view_organization"))

    assert "flow-board" not in page
    assert "refresh" not in page
    assert "Site administration" in page
    assert "flow-board" in shown(staff("view_webhook", name="ivan"))


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
    assert duration(seconds) == text


def test_a_refreshing_page_is_read_again_before_a_beat_is_missed() -> None:
    assert timedelta(seconds=dashboard.REFRESHED_EVERY_SECONDS) < timedelta(minutes=1)
