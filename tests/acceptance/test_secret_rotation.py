"""Secrets change while the bank delivers: the old one, both, the new one, as docs/security.md tells it."""

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

from ingest.authentication import parse_basic_credentials
from ingest.signatures import decode_secret, hex_signature, signature
from tests.acceptance.conftest import StackBuilder
from tests.factories import ROMASHKA, payment_body, terms
from tests.harness.launcher_stack import LauncherStack, wait_until
from tests.ingest.test_signatures import pem, token

OLD, NEW = "old-old-old-old-old-old-old-old0", "new-new-new-new-new-new-new-new0"
Signed = tuple[bytes, dict[str, str]]
Sign = Callable[[bytes, str], Signed]  # the body and headers of a delivery by a secret of this name


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


def known(*secrets: str) -> dict[str, str]:
    """The environment of a house that knows these secrets, each by all its four names."""
    return {
        "WEBHOOK_SECRETS": ",".join(f"whsec_{one.replace('-', '+')}" for one in secrets),
        "WEBHOOK_X_SIGNATURE_SECRETS": ",".join(secrets),
        "WEBHOOK_BASIC_AUTH": ",".join(f"bank:{one}" for one in secrets),
        "WEBHOOK_BEARER_TOKENS": ",".join(secrets),
    }


class ContinuousBank:
    """Delivers one operation after another, each until it is answered 200, signed anew for each attempt."""

    def __init__(self, stack: LauncherStack, sign: Sign) -> None:
        self.stack, self.sign, self.secret = stack, sign, OLD
        self.acknowledged: dict[str, str] = {}  # the secret that each operation was let in by
        self.refused: list[Any] = []
        self._over = Event()
        self._thread = Thread(target=self._deliver)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def goes_on(self) -> bool:
        """Whether it has been heard by the secret that it signs with now."""
        return self.secret in list(self.acknowledged.values())[-1:]

    def _deliver(self) -> None:
        while not self._over.is_set():
            told = terms(1_00, operation_id=uuid4())
            while True:
                secret = self.secret
                delivery, headers = self.sign(payment_body(told), secret)
                try:
                    status, answer = self.stack.post(delivery, headers)
                except OSError:  # it restarts
                    status, answer = 0, None
                if status == 200:
                    self.acknowledged[str(told.operation_id)] = secret
                    break
                if status not in {0, 503}:
                    self.refused.append((status, answer, secret))
                    break
                self._over.wait(0.02)


@contextmanager
def delivering(stack: LauncherStack, *signs: Sign) -> Iterator[list[ContinuousBank]]:
    banks = [ContinuousBank(stack, sign) for sign in signs]
    for bank in banks:
        bank.start()
    try:
        yield banks
    finally:
        for bank in banks:
            bank.stop()


def rotate(stack: LauncherStack, banks: list[ContinuousBank], learn: Callable[[str], None]) -> None:
    """`learn` has the house know "old and new", and then "new", when it returns."""

    def all_are_heard() -> bool:
        return all(bank.goes_on() for bank in banks) or any(bank.refused for bank in banks)

    wait_until(all_are_heard, stack)
    learn("old and new")
    for bank in banks:
        bank.secret = NEW
    wait_until(all_are_heard, stack)
    learn("new")
    before = [len(bank.acknowledged) for bank in banks]
    wait_until(lambda: all(len(b.acknowledged) > n for b, n in zip(banks, before, strict=True)), stack)


def nothing_was_lost(stack: LauncherStack, banks: list[ContinuousBank]) -> None:
    count = 0
    for bank in banks:
        assert bank.refused == []
        assert {OLD, NEW} == set(bank.acknowledged.values())
        count += len(bank.acknowledged)
        assert all(stack.answers(f"/api/operations/{one}/") for one in bank.acknowledged)
    stack.wait_for_balance(ROMASHKA, count)


def restarted(stack: LauncherStack, environment: Mapping[str, str]) -> None:
    assert stack.stop() == 0
    stack.environment |= environment
    stack.start()


def test_secrets_and_credentials_change_by_a_restart(new_stack: StackBuilder) -> None:
    secrets = {"old and new": known(OLD, NEW), "new": known(NEW)}
    with new_stack(**known(OLD)) as stack:
        with delivering(stack, standard, plain, basic, bearer) as banks:
            rotate(stack, banks, lambda state: restarted(stack, secrets[state]))
        nothing_was_lost(stack, banks)
        for bank in banks:
            delivery, headers = bank.sign(payment_body(terms()), OLD)
            assert stack.post(delivery, headers) == (401, {"error": "not authorized"})


def logged_in(stack: LauncherStack) -> Callable[[], bool]:
    """Logs an admin in; returns whether that still holds."""
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


def test_secret_key_changes_and_nobody_is_logged_out(new_stack: StackBuilder) -> None:
    with new_stack(SECRET_KEY=OLD * 2, **known(OLD, NEW)) as stack:
        is_logged_in = logged_in(stack)
        assert is_logged_in()
        steps = {
            "old and new": {"SECRET_KEY": NEW * 2, "SECRET_KEY_FALLBACKS": OLD * 2},
            "new": {"SECRET_KEY_FALLBACKS": ""},
        }
        still: list[bool] = []

        def learn(state: str) -> None:
            restarted(stack, steps[state])
            still.append(is_logged_in())

        with delivering(stack, plain) as banks:
            rotate(stack, banks, learn)
        nothing_was_lost(stack, banks)
        assert still[0]


@pytest.mark.skipif(
    not os.environ.get("DATABASE_URL", "").startswith("mysql:"), reason="SQLite knows no passwords"
)
def test_password_of_the_database_changes(
    new_stack: StackBuilder, django_db_blocker: DjangoDbBlocker
) -> None:
    user = f"rotating_{uuid4().hex[:8]}"

    def on_the_server(*statements: str) -> None:
        with django_db_blocker.unblock(), connection._nodb_cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    stack = new_stack(**known(OLD, NEW))
    root = urlsplit(stack.environment["DATABASE_URL"])

    def as_user(password: str) -> dict[str, str]:
        place = root.netloc.rpartition("@")[2]
        return {"DATABASE_URL": root._replace(netloc=f"{user}:{password}@{place}").geturl()}

    def learn(state: str) -> None:
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
            with delivering(stack, plain) as banks:
                rotate(stack, banks, learn)
            nothing_was_lost(stack, banks)
    finally:
        on_the_server(f"DROP USER '{user}'@'%'")


def test_fake_bank_signs_with_the_houses_own_secret(new_stack: StackBuilder) -> None:
    with new_stack(**known(NEW, OLD)) as stack:
        simulated = stack.manage("simulate_bank", "--url", stack.url, "--count", "50", "--invalid", "0.2")
        assert simulated.returncode == 0, simulated.stdout + simulated.stderr
        wrong = stack.manage("simulate_bank", "--count", "1", "--secret", "s3cret")
        assert wrong.returncode == 2
        assert "s3cret" not in wrong.stderr


def test_public_key_changes_by_a_reload(new_stack: StackBuilder, tmp_path: Path) -> None:
    keys = {name: rsa.generate_private_key(public_exponent=65537, key_size=2048) for name in (OLD, NEW)}
    first, second = tmp_path / "first.pem", tmp_path / "second.pem"
    for file in (first, second):
        file.write_bytes(pem(keys[OLD].public_key()))

    def by_token(delivery: bytes, secret: str) -> Signed:
        return token(delivery, key=keys[secret]), {}

    with new_stack(WEBHOOK_PUBLIC_KEY_FILE=f"{first},{second}") as stack:

        def learn(state: str) -> None:
            (second if state == "old and new" else first).write_bytes(pem(keys[NEW].public_key()))
            reload(stack)

        with delivering(stack, by_token) as banks:
            rotate(stack, banks, learn)
        nothing_was_lost(stack, banks)
        assert stack.post(*by_token(payment_body(terms()), OLD))[0] == 401


def reload(stack: LauncherStack) -> None:
    """What `kill -HUP` does to gunicorn; until none of its old workers is left, and new ones answer."""
    main, *workers = stack.pids("config.wsgi")
    os.kill(main, signal.SIGHUP)
    wait_until(lambda: not set(workers) & set(stack.pids("config.wsgi")), stack)
    wait_until(lambda: stack.answers("/readyz"), stack)
