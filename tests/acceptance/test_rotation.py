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

from ingest.doorkeeper import basic_credentials
from ingest.signing import key_of, plain_signature, signature
from tests.acceptance.conftest import HouseBuilder
from tests.acceptance.house import House, until
from tests.cast import ROMASHKA, body, terms
from tests.ingest.test_signing import pem, token

OLD, NEW = "old-old-old-old-old-old-old-old0", "new-new-new-new-new-new-new-new0"
Signed = tuple[bytes, dict[str, str]]
Sign = Callable[[bytes, str], Signed]  # the body and headers of a delivery by a secret of this name


def standard(delivery: bytes, secret: str) -> Signed:
    at = str(int(time.time()))
    shown = signature(key_of(f"whsec_{secret.replace('-', '+')}"), "msg_1", at, delivery).decode()
    return delivery, {"webhook-id": "msg_1", "webhook-timestamp": at, "webhook-signature": shown}


def plain(delivery: bytes, secret: str) -> Signed:
    return delivery, {"X-Signature": plain_signature(secret.encode(), delivery).decode()}


def basic(delivery: bytes, secret: str) -> Signed:
    return delivery, {"Authorization": f"Basic {basic_credentials(f'bank:{secret}').decode()}"}


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


class Bank:
    """Delivers one operation after another, each until it is answered 200, signed anew for each attempt."""

    def __init__(self, house: House, sign: Sign) -> None:
        self.house, self.sign, self.secret = house, sign, OLD
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
                delivery, headers = self.sign(body(told), secret)
                try:
                    status, answer = self.house.post(delivery, headers)
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
def delivering(house: House, *signs: Sign) -> Iterator[list[Bank]]:
    banks = [Bank(house, sign) for sign in signs]
    for bank in banks:
        bank.start()
    try:
        yield banks
    finally:
        for bank in banks:
            bank.stop()


def rotate(house: House, banks: list[Bank], learn: Callable[[str], None]) -> None:
    """`learn` has the house know "old and new", and then "new", when it returns."""

    def all_are_heard() -> bool:
        return all(bank.goes_on() for bank in banks) or any(bank.refused for bank in banks)

    until(all_are_heard, house)
    learn("old and new")
    for bank in banks:
        bank.secret = NEW
    until(all_are_heard, house)
    learn("new")
    before = [len(bank.acknowledged) for bank in banks]
    until(lambda: all(len(b.acknowledged) > n for b, n in zip(banks, before, strict=True)), house)


def nothing_was_lost(house: House, banks: list[Bank]) -> None:
    count = 0
    for bank in banks:
        assert bank.refused == []
        assert {OLD, NEW} == set(bank.acknowledged.values())
        count += len(bank.acknowledged)
        assert all(house.answers(f"/api/operations/{one}/") for one in bank.acknowledged)
    house.balance_becomes(ROMASHKA, count)


def restarted(house: House, environment: Mapping[str, str]) -> None:
    assert house.stop() == 0
    house.environment |= environment
    house.start()


def test_secrets_and_credentials_change_by_a_restart(new_house: HouseBuilder) -> None:
    secrets = {"old and new": known(OLD, NEW), "new": known(NEW)}
    with new_house(**known(OLD)) as house:
        with delivering(house, standard, plain, basic, bearer) as banks:
            rotate(house, banks, lambda state: restarted(house, secrets[state]))
        nothing_was_lost(house, banks)
        for bank in banks:
            delivery, headers = bank.sign(body(terms()), OLD)
            assert house.post(delivery, headers) == (401, {"error": "not authorized"})


def logged_in(house: House) -> Callable[[], bool]:
    """Logs an admin in; returns whether that still holds."""
    made = (
        "from django.contrib.auth.models import User; User.objects.create_superuser('anna', password='pass')"
    )
    assert house.manage("shell", "-c", made).returncode == 0
    browser = build_opener(HTTPCookieProcessor(cookies := CookieJar()))
    url = f"{house.url}/admin/login/"
    browser.open(url).read()
    form = {"username": "anna", "password": "pass", "next": "/admin/"}
    form["csrfmiddlewaretoken"] = next(str(one.value) for one in cookies if one.name == "csrftoken")
    browser.open(Request(url, urlencode(form).encode())).read()
    return lambda: bool(browser.open(f"{house.url}/admin/").geturl() == f"{house.url}/admin/")


def test_secret_key_changes_and_nobody_is_logged_out(new_house: HouseBuilder) -> None:
    with new_house(SECRET_KEY=OLD * 2, **known(OLD, NEW)) as house:
        is_logged_in = logged_in(house)
        assert is_logged_in()
        steps = {
            "old and new": {"SECRET_KEY": NEW * 2, "SECRET_KEY_FALLBACKS": OLD * 2},
            "new": {"SECRET_KEY_FALLBACKS": ""},
        }
        still: list[bool] = []

        def learn(state: str) -> None:
            restarted(house, steps[state])
            still.append(is_logged_in())

        with delivering(house, plain) as banks:
            rotate(house, banks, learn)
        nothing_was_lost(house, banks)
        assert still[0]


@pytest.mark.skipif(
    not os.environ.get("DATABASE_URL", "").startswith("mysql:"), reason="SQLite knows no passwords"
)
def test_password_of_the_database_changes(
    new_house: HouseBuilder, django_db_blocker: DjangoDbBlocker
) -> None:
    user = f"rotating_{uuid4().hex[:8]}"

    def on_the_server(*statements: str) -> None:
        with django_db_blocker.unblock(), connection._nodb_cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    house = new_house(**known(OLD, NEW))
    root = urlsplit(house.environment["DATABASE_URL"])

    def as_user(password: str) -> dict[str, str]:
        place = root.netloc.rpartition("@")[2]
        return {"DATABASE_URL": root._replace(netloc=f"{user}:{password}@{place}").geturl()}

    def learn(state: str) -> None:
        if state == "old and new":
            on_the_server(f"ALTER USER '{user}'@'%' IDENTIFIED BY 'second'")
            restarted(house, as_user("second"))

    on_the_server(
        f"CREATE USER '{user}'@'%' IDENTIFIED BY 'first'",
        f"GRANT ALL ON {root.path.lstrip('/')}.* TO '{user}'@'%'",
    )
    house.environment |= as_user("first")
    try:
        with house:
            with delivering(house, plain) as banks:
                rotate(house, banks, learn)
            nothing_was_lost(house, banks)
    finally:
        on_the_server(f"DROP USER '{user}'@'%'")


def test_fake_bank_signs_with_the_houses_own_secret(new_house: HouseBuilder) -> None:
    with new_house(**known(NEW, OLD)) as house:
        simulated = house.manage("simulate_bank", "--url", house.url, "--count", "50", "--invalid", "0.2")
        assert simulated.returncode == 0, simulated.stdout + simulated.stderr
        wrong = house.manage("simulate_bank", "--count", "1", "--secret", "s3cret")
        assert wrong.returncode == 2
        assert "s3cret" not in wrong.stderr


def test_public_key_changes_by_a_reload(new_house: HouseBuilder, tmp_path: Path) -> None:
    keys = {name: rsa.generate_private_key(public_exponent=65537, key_size=2048) for name in (OLD, NEW)}
    first, second = tmp_path / "first.pem", tmp_path / "second.pem"
    for file in (first, second):
        file.write_bytes(pem(keys[OLD].public_key()))

    def by_token(delivery: bytes, secret: str) -> Signed:
        return token(delivery, key=keys[secret]), {}

    with new_house(WEBHOOK_PUBLIC_KEY_FILE=f"{first},{second}") as house:

        def learn(state: str) -> None:
            (second if state == "old and new" else first).write_bytes(pem(keys[NEW].public_key()))
            reload(house)

        with delivering(house, by_token) as banks:
            rotate(house, banks, learn)
        nothing_was_lost(house, banks)
        assert house.post(*by_token(body(terms()), OLD))[0] == 401


def reload(house: House) -> None:
    """What `kill -HUP` does to gunicorn; until none of its old workers is left, and new ones answer."""
    main, *workers = house.pids("config.wsgi")
    os.kill(main, signal.SIGHUP)
    until(lambda: not set(workers) & set(house.pids("config.wsgi")), house)
    until(lambda: house.answers("/readyz"), house)
