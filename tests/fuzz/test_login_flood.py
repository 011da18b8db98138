"""A flood of login attempts at the admin must not delay the bank's deliveries."""

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
from tests.fuzz.attacker import valid_body
from tests.harness.launcher_stack import LauncherStack
from tests.markers import sqlite_run_only

pytestmark = sqlite_run_only
CONNECTIONS = 16
DELIVERIES = 40
TOKEN = "only-for-the-flood-of-passwords-0123456789"
NETWORKS: dict[str, Callable[[Random], str]] = {
    "one": lambda rng: f"2001:db8:0:1::{rng.randrange(1 << 16):x}",
    "a new one each time": lambda rng: f"10.{'.'.join(str(rng.randrange(256)) for _ in range(3))}",
}


@pytest.mark.parametrize("networks", ["one", pytest.param("a new one each time", marks=pytest.mark.long)])
def test_login_flood_does_not_block_deliveries(networks: str, new_stack: StackBuilder) -> None:
    statuses: Counter[int] = Counter()
    stop = threading.Event()
    with (
        new_stack(WEBHOOK_BEARER_TOKENS=TOKEN, TRUSTED_PROXIES="1") as stack,
        ThreadPoolExecutor(CONNECTIONS) as pool,
    ):
        try:
            for seed in range(CONNECTIONS):
                pool.submit(log_in_repeatedly, stack, Random(seed), NETWORKS[networks], statuses, stop)
            stack.wait_until(lambda: statuses[429] > CONNECTIONS)
            rng = Random(99)
            delivered = [
                stack.post(valid_body(rng, 100), {"Authorization": f"Bearer {TOKEN}"})
                for _ in range(DELIVERIES)
            ]
        finally:
            stop.set()

    assert delivered == [(200, {"status": "success"})] * DELIVERIES
    assert set(statuses) == {200, 429}  # 200 is the form with "wrong password"
    if networks == "one":
        assert statuses[200] <= 3 * 10  # the flood may take up to three minutes


def log_in_repeatedly(
    stack: LauncherStack,
    rng: Random,
    network: Callable[[Random], str],
    statuses: Counter[int],
    stop: threading.Event,
) -> None:
    """Log in repeatedly, under a new user name each time."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60)
    with closing(connection):
        connection.request("GET", "/admin/login/")
        form = connection.getresponse()
        cookie = form.headers["Set-Cookie"].partition(";")[0]
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form.read().decode())
        assert found
        while not stop.is_set():
            name = f"name-{rng.randrange(1 << 60)}"
            body = urlencode({"csrfmiddlewaretoken": found[1], "username": name, "password": "Winter2026"})
            headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", "/admin/login/", body, headers | {"X-Forwarded-For": network(rng)})
            response = connection.getresponse()
            response.read()
            statuses[response.status] += 1
            if response.status == 429:
                assert int(response.headers["Retry-After"]) >= 1
