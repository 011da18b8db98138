"""A flood of passwords at the admin's login, and the bank's deliveries beside it."""

import http.client
import re
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from random import Random
from urllib.parse import urlencode

import pytest

from tests.acceptance.conftest import StackBuilder
from tests.fuzz.attacker import honest
from tests.harness.launcher_stack import LauncherStack, wait_until
from tests.markers import sqlite_run_only

pytestmark = sqlite_run_only
CONNECTIONS = 16
DELIVERIES = 40
TOKEN = "only-for-the-flood-of-passwords-0123456789"
NETWORKS: dict[str, Callable[[Random], str]] = {
    "one": lambda chance: f"2001:db8:0:1::{chance.randrange(1 << 16):x}",
    "a new one each time": lambda chance: f"10.{'.'.join(str(chance.randrange(256)) for _ in range(3))}",
}


@pytest.mark.parametrize("networks", NETWORKS)
def test_a_flood_of_logins_stops_no_delivery(networks: str, new_stack: StackBuilder) -> None:
    answers: Counter[int] = Counter()
    ending = threading.Event()
    with (
        new_stack(WEBHOOK_BEARER_TOKENS=TOKEN, TRUSTED_PROXIES="1") as stack,
        ThreadPoolExecutor(CONNECTIONS) as pool,
    ):
        try:
            for seed in range(CONNECTIONS):
                pool.submit(log_in_on_and_on, stack, Random(seed), NETWORKS[networks], answers, ending)
            wait_until(lambda: answers[429] > CONNECTIONS, stack)
            chance = Random(99)
            delivered = [
                stack.post(honest(chance, 100), {"Authorization": f"Bearer {TOKEN}"})
                for _ in range(DELIVERIES)
            ]
        finally:
            ending.set()

    assert delivered == [(200, {"status": "success"})] * DELIVERIES
    assert set(answers) == {200, 429}  # 200 is the form again, with "wrong password"
    if networks == "one":
        assert answers[200] <= 3 * 10  # in the two or three minutes that it may have taken


def log_in_on_and_on(
    stack: LauncherStack,
    chance: Random,
    network: Callable[[Random], str],
    answers: Counter[int],
    ending: threading.Event,
) -> None:
    """Under a new name each time."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60)
    with closing(connection):
        connection.request("GET", "/admin/login/")
        form = connection.getresponse()
        cookie = form.headers["Set-Cookie"].partition(";")[0]
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form.read().decode())
        assert found
        while not ending.is_set():
            name = f"name-{chance.randrange(1 << 60)}"
            body = urlencode({"csrfmiddlewaretoken": found[1], "username": name, "password": "Winter2026"})
            headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", "/admin/login/", body, headers | {"X-Forwarded-For": network(chance)})
            answer = connection.getresponse()
            answer.read()
            answers[answer.status] += 1
            if answer.status == 429:
                assert int(answer.headers["Retry-After"]) >= 1
