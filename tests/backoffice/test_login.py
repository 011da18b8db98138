"""The admin's login: lockout, the rate limit of password forms, and the second factor."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from axes.models import AccessAttempt, AccessLog
from django.contrib.auth.hashers import MD5PasswordHasher
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import transaction
from django.db.models import F
from django.http import HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.utils import timezone
from django_otp.oath import TOTP
from django_otp.plugins.otp_static.lib import add_static_token
from django_otp.plugins.otp_totp.models import TOTPDevice

from backoffice.login import axes_client_ip
from tests import admin_rows
from tests.markers import sqlite_run_only
from web import password_limit

pytestmark = [pytest.mark.django_db, sqlite_run_only]
PASSWORD = "right horse battery"
LOGIN = "/admin/login/?next=/admin/"


@pytest.fixture
def anna() -> User:
    return User.objects.create_superuser("anna", password=PASSWORD)


@pytest.fixture
def device(anna: User) -> TOTPDevice:
    return TOTPDevice.objects.create(user=anna, name="phone")


def log_in(password: str = PASSWORD, code: str = "", name: str = "anna", **extra: str) -> HttpResponse:
    form = {"username": name, "password": password, "otp_token": code, "next": "/admin/"}
    response: HttpResponse = Client().post(LOGIN, form, **extra)  # type: ignore[arg-type]
    return response


def code_of(device: TOTPDevice) -> str:
    totp = TOTP(device.bin_key, device.step, device.t0, device.digits, device.drift)
    return f"{totp.token():0{device.digits}d}"


# --- lockout ------------------------------------------------------------------------------------------


@pytest.fixture
def locked_out(anna: User) -> None:
    for _ in range(5):
        last = log_in("wrong")
    assert last.status_code == 429
    assert b"Too many failed logins" in last.content


@pytest.mark.usefixtures("locked_out")
def test_five_failures_lock_out_the_right_password() -> None:
    assert log_in().status_code == 429


@pytest.mark.usefixtures("locked_out")
def test_lockout_is_per_name_and_address() -> None:
    User.objects.create_superuser("olga", password=PASSWORD)
    assert log_in(name="olga").status_code == 302
    assert log_in(REMOTE_ADDR="192.0.2.7").status_code == 302


@pytest.mark.usefixtures("locked_out")
def test_lockout_ends_after_15_minutes_and_its_rows_are_deleted() -> None:
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
    assert log_in().status_code == 302
    assert AccessAttempt.objects.count() == 0


@pytest.mark.usefixtures("locked_out")
def test_operator_can_end_the_lockout() -> None:
    call_command("axes_reset_username", "anna", verbosity=0)
    assert log_in().status_code == 302


@pytest.mark.usefixtures("locked_out")
def test_locked_out_client_causes_no_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(password_limit, "FORMS_PER_MINUTE_MAX", 100)
    before = list(AccessAttempt.objects.values())
    for number in range(10):
        log_in("wrong", HTTP_USER_AGENT=f"guesser {number}")
    assert list(AccessAttempt.objects.values()) == before
    assert AccessLog.objects.count() == 0


def test_failed_login_stores_no_password_or_code(anna: User) -> None:
    log_in("almost-my-password", "abc-my-code")
    stored = str(AccessAttempt.objects.values())
    assert "almost-my-password" not in stored
    assert "abc-my-code" not in stored


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, "192.0.2.1", "127.0.0.1"),
        (1, "192.0.2.1, 192.0.2.2", "192.0.2.2"),
        (2, "192.0.2.1, 192.0.2.2", "192.0.2.1"),
        (1, "nonsense", None),
    ],
)
def test_failures_count_by_the_address_that_trusted_proxies_saw(
    proxies: int, forwarded: str, address: str | None, rf: RequestFactory
) -> None:
    with override_settings(TRUSTED_PROXIES=proxies):
        assert axes_client_ip(rf.get("/", headers={"X-Forwarded-For": forwarded})) == address


def test_ipv6_network_is_locked_out_as_a_whole(anna: User) -> None:
    responses = [log_in("wrong", REMOTE_ADDR=f"2001:db8:0:1::{number:x}").status_code for number in range(20)]
    assert responses[:4] == [200] * 4
    assert set(responses[4:]) == {429}
    assert log_in(REMOTE_ADDR="2001:db8:0:1:ffff::1").status_code == 429
    assert log_in(REMOTE_ADDR="2001:db8:0:2::1").status_code == 302


def test_ipv4_mapped_address_counts_as_ipv4(anna: User) -> None:
    for _ in range(5):
        log_in("wrong", REMOTE_ADDR="::ffff:192.0.2.1")
    assert log_in(REMOTE_ADDR="192.0.2.1").status_code == 429
    assert log_in(REMOTE_ADDR="192.0.2.2").status_code == 302


# --- rate limit of password forms ---------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_network_throttled() -> Iterator[None]:
    password_limit._throttled_until.clear()
    yield
    password_limit._throttled_until.clear()


@pytest.fixture
def within_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.throttling.time.time", lambda: 1_800_000_000.0)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that records each hashed password."""
    passwords: list[str] = []
    encode = MD5PasswordHasher.encode

    def counting(hasher: MD5PasswordHasher, password: str, salt: str) -> str:
        passwords.append(password)
        return encode(hasher, password, salt)

    monkeypatch.setattr(MD5PasswordHasher, "encode", counting)
    return passwords


@pytest.mark.usefixtures("within_a_minute", "anna")
def test_network_limit_applies_across_user_names(hashed: list[str]) -> None:
    responses = [log_in(name=f"name{number}", REMOTE_ADDR=f"2001:db8::{number:x}") for number in range(1, 31)]
    assert [response.status_code for response in responses] == [200] * 10 + [429] * 20
    assert len(hashed) == 10
    assert int(responses[-1]["Retry-After"]) == 60 - 1_800_000_000 % 60
    assert "Too many login attempts" in responses[-1].content.decode()
    assert log_in(REMOTE_ADDR="2001:db8::1").status_code == 429  # the right password, too
    assert log_in(REMOTE_ADDR="2001:db8:0:1::1").status_code == 302


@pytest.mark.usefixtures("within_a_minute", "anna")
def test_network_over_the_limit_is_refused_before_django(hashed: list[str]) -> None:
    def unreachable(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        raise AssertionError("Django was asked")

    responses: list[Any] = []
    for number in range(1, 12):
        log_in(name=f"name{number}", REMOTE_ADDR="2001:db8::1")
    application = password_limit.limit_password_forms(unreachable)
    environ = RequestFactory().post("/admin/login/", REMOTE_ADDR="2001:db8::2").environ  # the same network

    body = b"".join(application(environ, lambda *head: responses.append(head)))  # type: ignore[arg-type,return-value]

    assert responses[0][0] == "429 Too Many Requests"
    assert 0 < int(dict(responses[0][1])["Retry-After"]) <= 60
    assert b"Too many login attempts" in body
    assert len(hashed) == 10


@pytest.mark.usefixtures("within_a_minute")
def test_all_password_forms_share_the_limit(anna: User, hashed: list[str]) -> None:
    client = Client()
    client.force_login(anna)
    new = {"new_password1": "x", "new_password2": "x", "password1": "x", "password2": "x"}
    form = {"old_password": "wrong", "usable_password": "true", **new}
    pages = ["/admin/password_change/", "/admin/auth/user/add/", f"/admin/auth/user/{anna.pk}/password/"]
    for _ in range(10):
        client.post(pages[0], form)
    before = len(hashed)
    assert before == 10
    assert [client.post(page, form).status_code for page in pages] == [429] * 3
    assert log_in().status_code == 429
    assert [client.get(page).status_code for page in pages] == [200] * 3
    assert len(hashed) == before


def test_every_form_that_hashes_is_limited(
    anna: User, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Post all of Django's password fields to each route; each that hashes must be limited."""
    monkeypatch.setattr(password_limit, "FORMS_PER_MINUTE_MAX", 1000)
    client = Client()
    client.force_login(anna)
    logged_in = client.cookies.copy()
    fields = (
        "username",
        "password",
        "old_password",
        "new_password1",
        "new_password2",
        "password1",
        "password2",
    )
    form = (
        dict.fromkeys(fields, "long enough 1")
        | {"username": "dora"}
        | {"usable_password": "true", "set_usable_password": "true"}
    )
    hashing_paths = set()
    for path in (admin_rows.fill_route(route, str(anna.pk)) for route in admin_rows.admin_routes()):
        client.cookies = logged_in.copy()
        with transaction.atomic():
            hashed.clear()
            client.post(path, form)
            transaction.set_rollback(True)
        if hashed:
            hashing_paths.add(path)
    assert len(hashing_paths) == 4
    assert [path for path in hashing_paths if not password_limit.takes_password("POST", path)] == []


def test_concurrent_password_form_is_rejected_before_django() -> None:
    started, end = threading.Event(), threading.Event()

    def slow(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        started.set()
        assert end.wait(30)
        start_response("200 OK", [])
        return [b"hashed"]

    def ask(path: str, method: str = "POST", language: str = "en") -> tuple[str, dict[str, str], bytes]:
        responses: list[Any] = []
        environ = RequestFactory(headers={"Accept-Language": language}).generic(method, path).environ
        body = b"".join(application(environ, lambda *head: responses.append(head)))  # type: ignore[arg-type,return-value]
        return responses[0][0], dict(responses[0][1]), body

    application = password_limit.limit_password_forms(slow)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(ask, "/admin/login/")
        assert started.wait(30)
        try:
            status, headers, page = ask("/admin/password_change/", language="ru")
        finally:
            end.set()
        assert first.result() == ("200 OK", {}, b"hashed")
    assert (status, headers["Retry-After"], headers["Content-Length"]) == (
        "429 Too Many Requests", "1", str(len(page)),
    )  # fmt: skip
    assert "Повторите через 1 секунду." in page.decode()
    assert ask("/admin/login/")[2] == ask("/admin/login/", "GET")[2] == b"hashed"


# --- the second factor --------------------------------------------------------------------------------


@pytest.mark.usefixtures("anna")
def test_user_without_second_factor_logs_in_by_password() -> None:
    assert log_in().status_code == 302


@pytest.mark.usefixtures("anna")
@pytest.mark.parametrize("elsewhere", ["//evil.example/", "https://evil.example/", "javascript:x", ""])
def test_login_with_foreign_next_leads_to_the_front_page(elsewhere: str) -> None:
    form = {"username": "anna", "password": PASSWORD, "next": elsewhere}
    response = Client().post("/admin/login/", form)
    assert (response.status_code, response["Location"]) == (302, "/admin/")


def test_user_with_second_factor_needs_its_code(device: TOTPDevice) -> None:
    assert log_in().status_code == 200
    assert log_in(code=code_of(device)).status_code == 302


def test_unconfirmed_device_is_not_required(device: TOTPDevice) -> None:
    TOTPDevice.objects.update(confirmed=False)
    assert log_in().status_code == 302


def test_code_is_valid_once(device: TOTPDevice) -> None:
    code = code_of(device)
    assert log_in(code=code).status_code == 302
    assert log_in(code=code).status_code == 200


def test_wrong_code_throttles_the_next_one(device: TOTPDevice) -> None:
    log_in(code="000000" if code_of(device) != "000000" else "111111")
    assert TOTPDevice.objects.update(throttling_failure_count=F("throttling_failure_count") + 9) == 1
    assert TOTPDevice.objects.get().throttling_failure_count == 10  # 2 ** 9 seconds
    assert log_in(code=code_of(device)).status_code == 200
    TOTPDevice.objects.update(throttling_failure_count=0, throttling_failure_timestamp=None)
    assert log_in(code=code_of(device)).status_code == 302


def test_code_of_another_user_is_rejected(device: TOTPDevice) -> None:
    olga = User.objects.create_superuser("olga", password=PASSWORD)
    TOTPDevice.objects.create(user=olga, name="phone")
    assert log_in(name="olga", code=code_of(device)).status_code == 200


def test_session_without_second_factor_ends_when_one_is_set_up(anna: User) -> None:
    client = Client()
    client.force_login(anna)
    assert client.get("/admin/").status_code == 200
    TOTPDevice.objects.create(user=anna, name="phone")
    assert client.get("/admin/").status_code == 302


def test_backup_code_logs_in_once(anna: User, device: TOTPDevice) -> None:
    code = add_static_token("anna").token
    assert log_in(code=code).status_code == 302
    assert log_in(code=code).status_code == 200


def test_code_of_the_second_device_does_not_throttle_the_first(anna: User, device: TOTPDevice) -> None:
    other = TOTPDevice.objects.create(user=anna, name="tablet")

    assert log_in(code=code_of(other)).status_code == 302
    assert log_in(code=code_of(device)).status_code == 302


@pytest.mark.usefixtures("anna")
def test_backup_codes_alone_require_no_code() -> None:
    add_static_token("anna")
    assert log_in().status_code == 302


def test_required_second_factor_rejects_users_without_one(anna: User) -> None:
    with override_settings(SECOND_FACTOR_REQUIRED=True):
        assert b"you have not set one up" in log_in().content
        assert log_in(code=add_static_token("anna").token).status_code == 302


def test_enrolment_page_shows_the_qr_code(anna: User) -> None:
    device = TOTPDevice.objects.create(user=anna, name="phone", confirmed=False)
    client = Client()
    client.force_login(anna)
    page = client.get(f"/admin/otp_totp/totpdevice/{device.pk}/config/")
    picture = client.get(f"/admin/otp_totp/totpdevice/{device.pk}/qrcode/")
    assert page.status_code == 200
    assert b"<svg" in picture.content
