"""The viewer's time zone."""

from datetime import UTC, datetime

import pytest
from django.test import Client
from django.utils import timezone

from backoffice.locale import SafeZoneInfo
from ledger.models import Payment
from tests.admin_client import admin_url, superuser_client
from tests.factories import ROMASHKA, post_payments, terms
from tests.markers import sqlite_run_only

pytestmark = [pytest.mark.django_db, sqlite_run_only]
TIME_ZONE_PAGE = "/admin/time-zone/"


def in_zone(name: str) -> Client:
    client = superuser_client()
    client.cookies["time_zone"] = name
    return client


def text(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


def payments() -> str:
    return admin_url(Payment, "changelist")


def test_times_are_shown_in_the_viewers_zone_named_in_the_header() -> None:
    post_payments(terms(document_date=datetime(2024, 4, 27, 21, tzinfo=UTC)))

    shown = text(in_zone("Europe/Moscow"), payments())

    assert "2024-04-28 00:00:00" in shown
    assert "times in Europe/Moscow" in shown


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../../etc/passwd", "localtime", "UTC\0", "x" * 4000])
def test_unknown_zone_falls_back_to_the_default(name: str) -> None:
    post_payments(terms(document_date=datetime(2024, 4, 27, 21, tzinfo=UTC)))

    shown = text(in_zone(name), payments())

    assert "2024-04-27 21:00:00" in shown
    assert "times in UTC" in shown


def test_zone_does_not_leak_into_the_next_request() -> None:
    post_payments(terms(document_date=datetime(2024, 4, 27, 21, tzinfo=UTC)))
    text(in_zone("Asia/Tokyo"), payments())

    assert timezone.get_current_timezone_name() == "UTC"
    assert "times in UTC" in text(superuser_client("eva"), payments())


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York", "Pacific/Kiritimati"])
@pytest.mark.parametrize(
    "moment", [datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(1000, 1, 1, tzinfo=UTC)]
)
def test_extreme_document_dates_are_shown_in_every_zone(zone: str, moment: datetime) -> None:
    post_payments(terms(document_date=moment))
    client = in_zone(zone)

    payment = Payment.objects.get()
    assert text(client, payments())
    assert text(client, admin_url(Payment, "change", payment.pk))
    organization = f"/admin/ledger/organization/{payment.organization_id}"
    assert text(client, f"{organization}/change/")
    assert ROMASHKA in b"".join(client.get(f"{organization}/statement.csv")).decode()


def test_zone_converts_times() -> None:
    assert str(datetime(2024, 4, 27, 21, tzinfo=UTC).astimezone(SafeZoneInfo("Europe/Moscow"))) == (
        "2024-04-28 00:00:00+03:00"
    )


def test_api_ignores_the_time_zone_cookie(client: Client) -> None:
    post_payments(terms())
    client.cookies["time_zone"] = "Asia/Tokyo"

    history = client.get(f"/api/organizations/{ROMASHKA}/balance/history/").json()["history"]
    assert history[0]["document_date"] == "2024-04-27T21:00:00Z"


def test_choosing_a_zone_sets_a_cookie_and_returns_to_the_page() -> None:
    client = superuser_client()

    response = client.post(f"{TIME_ZONE_PAGE}?next={payments()}", {"zone": "Asia/Tokyo"})

    assert (response.status_code, response["Location"]) == (302, payments())
    cookie = response.cookies["time_zone"]
    assert (cookie.value, cookie["path"], cookie["samesite"]) == ("Asia/Tokyo", "/admin/", "Lax")
    assert "times in Asia/Tokyo" in text(client, payments())
    assert client.post(TIME_ZONE_PAGE, {"zone": ""}).cookies["time_zone"].value == ""


@pytest.mark.parametrize("back", ["https://example.com/", "//example.com/", "javascript:alert(1)", ""])
def test_choosing_a_zone_redirects_to_no_foreign_site(back: str) -> None:
    response = superuser_client().post(f"{TIME_ZONE_PAGE}?next={back}", {"zone": "UTC"})

    assert response["Location"] == "/admin/"


def test_unknown_zone_is_rejected_and_the_page_requires_login(client: Client) -> None:
    assert "time_zone" not in superuser_client().post(TIME_ZONE_PAGE, {"zone": "Mars/Olympus"}).cookies
    assert client.get(TIME_ZONE_PAGE).status_code == 302
