"""Rotate secrets under load: the old one, both, the new one, as docs/security.md describes."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPCookieProcessor, Request, build_opener
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from django.db import connection
from pytest_django import DjangoDbBlocker

from core.delivery_auth import decode_secret, parse_basic_credentials
from ingest.signatures import hex_signature, signature
from tests.acceptance.conftest import StackBuilder
from tests.factories import ROMASHKA, payment_body, terms
from tests.harness.launcher_stack import LauncherStack
from tests.ingest.test_signatures import pem, token

OLD, NEW = "old-old-old-old-old-old-old-old0", "new-new-new-new-new-new-new-new0"
Signed = tuple[bytes, dict[str, str]]
Sign = Callable[[bytes, str], Signed]  # (body, secret) → body and headers of the delivery


def standard(delivery: bytes, secret: str) -> Signed:
    at = str(int(time.time()))
    shown = signature(decode_secret(f"whsec_{secret.replace('-', '+')}"), "msg_1", at, delivery).decode()
    return delivery, {"webhook-id": "msg_1", "webhook-timestamp": at, "webhook-signature": shown}


def plain(delivery: bytes, secret: str) -> Signed:
    return delivery, {"X-Signature": hex_signature(secret.encode(), delivery).decode()}


def basic(delivery: bytes, secret: str) -> Signed:
    return delivery, {"Authorization": f"Basic {parse_basic_credentials(f'bank:{secret}').decode()}"}


def bearer(delivery: bytes, secret: str) -> Signed:
    return delivery, {"Authorization": f"Bearer {secret}"}


def environment_of(*secrets: str) -> dict[str, str]:
    """Return the environment of a stack that accepts these secrets under all four methods."""
    return {
        "WEB_PROCESSES": "1",
        "WEBHOOK_SECRETS": ",".join(f"whsec_{one.replace('-', '+')}" for one in secrets),
        "WEBHOOK_X_SIGNATURE_SECRETS": ",".join(secrets),
        "WEBHOOK_BASIC_AUTH": ",".join(f"bank:{one}" for one in secrets),
        "WEBHOOK_BEARER_TOKENS": ",".join(secrets),
    }


PAUSE_SECONDS = 0.1  # the processor is for the restarting stack


class ContinuousBank:
    """Deliver one operation after another; retry each until it gets 200, signed anew for each attempt."""

    def __init__(self, stack: LauncherStack, sign: Sign) -> None:
        self.stack, self.sign, self.secret = stack, sign, OLD
        self.acknowledged: dict[str, str] = {}  # operation id → accepted secret
        self.refused: list[Any] = []
        self._over = Event()
        self._thread = Thread(target=self._deliver)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def is_accepted(self) -> bool:
        """Return whether the current secret has been accepted."""
        return self.secret in list(self.acknowledged.values())[-1:]

    def _deliver(self) -> None:
        while not self._over.is_set():
            payment = terms(1_00, operation_id=uuid4())
            while True:
                secret = self.secret
                delivery, headers = self.sign(payment_body(payment), secret)
                try:
                    status, answer = self.stack.post(delivery, headers)
                except OSError:  # the stack restarts
                    status, answer = 0, None
                if status == 200:
                    self.acknowledged[str(payment.operation_id)] = secret
                    self._over.wait(PAUSE_SECONDS)
                    break
                if status not in {0, 503}:
                    self.refused.append((status, answer, secret))
                    break
                self._over.wait(PAUSE_SECONDS)


@contextmanager
def deliveries(stack: LauncherStack, *signs: Sign) -> Iterator[list[ContinuousBank]]:
    banks = [ContinuousBank(stack, sign) for sign in signs]
    for bank in banks:
        bank.start()
    try:
        yield banks
    finally:
        for bank in banks:
            bank.stop()


def rotate(stack: LauncherStack, banks: list[ContinuousBank], configure: Callable[[str], None]) -> None:
    """Rotate the secret: `configure` makes the stack accept "old and new", then "new"."""

    def all_are_accepted() -> bool:
        return all(bank.is_accepted() for bank in banks) or any(bank.refused for bank in banks)

    stack.wait_until(all_are_accepted)
    configure("old and new")
    for bank in banks:
        bank.secret = NEW
    stack.wait_until(all_are_accepted)
    configure("new")
    before = [len(bank.acknowledged) for bank in banks]
    stack.wait_until(lambda: all(len(b.acknowledged) > n for b, n in zip(banks, before, strict=True)))


def assert_nothing_lost(stack: LauncherStack, banks: list[ContinuousBank]) -> None:
    count = 0
    for bank in banks:
        assert bank.refused == []
        assert {OLD, NEW} == set(bank.acknowledged.values())
        count += len(bank.acknowledged)
        assert all(stack.get(f"/api/operations/{one}/")[0] == 200 for one in bank.acknowledged)
    stack.wait_for_balance(ROMASHKA, count)


def restarted(stack: LauncherStack, environment: Mapping[str, str]) -> None:
    assert stack.stop() == 0
    stack.environment |= environment
    stack.start()


@pytest.mark.long
def test_secrets_rotate_by_restart(new_stack: StackBuilder) -> None:
    secrets = {"old and new": environment_of(OLD, NEW), "new": environment_of(NEW)}
    with new_stack(**environment_of(OLD)) as stack:
        with deliveries(stack, standard, plain, basic, bearer) as banks:
            rotate(stack, banks, lambda state: restarted(stack, secrets[state]))
        assert_nothing_lost(stack, banks)
        for bank in banks:
            delivery, headers = bank.sign(payment_body(terms()), OLD)
            assert stack.post(delivery, headers) == (401, {"error": "not authorized"})


def logged_in(stack: LauncherStack) -> Callable[[], bool]:
    """Log in to the admin; return a function that tells whether the session is still valid."""
    made = (
        "from django.contrib.auth.models import User; User.objects.create_superuser('anna', password='pass')"
    )
    assert stack.manage("shell", "-c", made).returncode == 0
    browser = build_opener(HTTPCookieProcessor(cookies := CookieJar()))
    url = f"{stack.url}/admin/login/"
    browser.open(url).read()
    form = {"username": "anna", "password": "pass", "next": "/admin/"}
    form["csrfmiddlewaretoken"] = next(str(one.value) for one in cookies if one.name == "csrftoken")
    browser.open(Request(url, urlencode(form).encode())).read()
    return lambda: bool(browser.open(f"{stack.url}/admin/").geturl() == f"{stack.url}/admin/")


@pytest.mark.long
def test_secret_key_rotation_keeps_sessions(new_stack: StackBuilder) -> None:
    with new_stack(SECRET_KEY=OLD * 2, **environment_of(OLD, NEW)) as stack:
        is_logged_in = logged_in(stack)
        assert is_logged_in()
        steps = {
            "old and new": {"SECRET_KEY": NEW * 2, "SECRET_KEY_FALLBACKS": OLD * 2},
            "new": {"SECRET_KEY_FALLBACKS": ""},
        }
        sessions_kept: list[bool] = []

        def configure(state: str) -> None:
            restarted(stack, steps[state])
            sessions_kept.append(is_logged_in())

        with deliveries(stack, plain) as banks:
            rotate(stack, banks, configure)
        assert_nothing_lost(stack, banks)
        assert sessions_kept[0]


@pytest.mark.long
@pytest.mark.skipif(
    not os.environ.get("DATABASE_URL", "").startswith("mysql:"), reason="SQLite has no passwords"
)
def test_database_password_rotates(new_stack: StackBuilder, django_db_blocker: DjangoDbBlocker) -> None:
    user = f"rotating_{uuid4().hex[:8]}"

    def on_the_server(*statements: str) -> None:
        with django_db_blocker.unblock(), connection._nodb_cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    stack = new_stack(**environment_of(OLD, NEW))
    root = urlsplit(stack.environment["DATABASE_URL"])

    def as_user(password: str) -> dict[str, str]:
        place = root.netloc.rpartition("@")[2]
        return {"DATABASE_URL": root._replace(netloc=f"{user}:{password}@{place}").geturl()}

    def configure(state: str) -> None:
        if state == "old and new":
            on_the_server(f"ALTER USER '{user}'@'%' IDENTIFIED BY 'second'")
            restarted(stack, as_user("second"))

    on_the_server(
        f"CREATE USER '{user}'@'%' IDENTIFIED BY 'first'",
        f"GRANT ALL ON {root.path.lstrip('/')}.* TO '{user}'@'%'",
    )
    stack.environment |= as_user("first")
    try:
        with stack:
            with deliveries(stack, plain) as banks:
                rotate(stack, banks, configure)
            assert_nothing_lost(stack, banks)
    finally:
        on_the_server(f"DROP USER '{user}'@'%'")


def test_public_key_rotates_by_reload(new_stack: StackBuilder, tmp_path: Path) -> None:
    keys = {name: rsa.generate_private_key(public_exponent=65537, key_size=2048) for name in (OLD, NEW)}
    first, second = tmp_path / "first.pem", tmp_path / "second.pem"
    for file in (first, second):
        file.write_bytes(pem(keys[OLD].public_key()))

    def by_token(delivery: bytes, secret: str) -> Signed:
        return token(delivery, key=keys[secret]), {}

    with new_stack(WEBHOOK_PUBLIC_KEY_FILE=f"{first},{second}", WEB_PROCESSES="2") as stack:

        def configure(state: str) -> None:
            (second if state == "old and new" else first).write_bytes(pem(keys[NEW].public_key()))
            reload(stack)

        with deliveries(stack, by_token) as banks:
            rotate(stack, banks, configure)
        assert_nothing_lost(stack, banks)
        assert stack.post(*by_token(payment_body(terms()), OLD))[0] == 401


def reload(stack: LauncherStack) -> None:
    """Send SIGHUP to gunicorn; wait until all old worker processes are gone and new ones respond."""
    main, *workers = stack.pids("config.asgi")
    os.kill(main, signal.SIGHUP)
    stack.wait_until(lambda: not set(workers) & set(stack.pids("config.asgi")))
    stack.wait_until(stack.is_ready)
