"""Real web, worker and scheduler processes, and a bank that sends the same thing too often."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from tests.acceptance.conftest import HouseBuilder
from tests.acceptance.house import House, until
from tests.cast import ROMASHKA, VASILEK
from tests.servers import ROOT


def webhook(amount: object = 100, inn: str = ROMASHKA, operation_id: str = "") -> dict[str, object]:
    return {
        "operation_id": operation_id or str(uuid4()),
        "amount": amount,
        "payer_inn": inn,
        "document_number": "PAY-328",
        "document_date": "2024-04-27T21:00:00Z",
    }


def assert_exact(house: House, *options: str) -> None:
    simulated = house.manage("simulate_bank", "--url", house.url, *options)
    assert simulated.returncode == 0, simulated.stdout + simulated.stderr + house.output()
    verified = house.manage("verify_ledger")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_the_fake_bank_finds_every_balance_exact(house: House) -> None:
    assert_exact(
        house,
        *("--count", "500", "--organizations", "10"),
        *("--duplicates", "0.3", "--conflicts", "0.1", "--invalid", "0.1"),
    )


def test_where_readers_need_a_key_the_fake_bank_shows_its_own(new_house: HouseBuilder) -> None:
    with new_house(READ_AUTH="key") as house:
        created = house.manage("apikey", "create", "--name", "fake bank", "--read-all")
        house.api_key = created.stdout.removesuffix("\n")
        assert_exact(house, "--count", "50", "--api-key", house.api_key)

        refused = house.manage("simulate_bank", "--url", house.url, "--count", "1")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "401" in refused.stderr
        assert house.manage("apikey", "revoke", house.api_key.split("_")[1]).returncode == 0
        assert house.get(f"/api/organizations/{ROMASHKA}/balance/")[0] == 401
        assert house.api_key not in house.output()


def test_many_worker_processes_on_one_hot_organization_stay_exact(new_house: HouseBuilder) -> None:
    with new_house(WORKER_PROCESSES="4", BATCH_WEBHOOKS_MAX="10") as house:
        assert_exact(house, "--count", "500", "--organizations", "1", "--duplicates", "0.2")


def test_a_hundred_simultaneous_deliveries_of_one_operation_credit_once(house: House) -> None:
    delivery = webhook(123.45, inn=VASILEK)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: house.deliver(delivery), range(100)))

    assert sorted(answer["status"] for _, answer in answers) == ["already processed"] * 99 + ["success"]
    # Of the same organization, and stored later: when it is applied, all the others would be.
    house.deliver(webhook(0.55, inn=VASILEK))
    house.balance_becomes(VASILEK, 124)
    (newest, first) = house.json(f"/api/organizations/{VASILEK}/balance/history/")["history"]
    assert (newest["seq"], first["operation_id"]) == (2, delivery["operation_id"])


def test_killed_pool_processes_lose_and_double_nothing(new_house: HouseBuilder) -> None:
    if not os.environ.get("REDIS_URL"):
        pytest.skip("with the file broker the worker is one process")
    with new_house(BATCH_WEBHOOKS_MAX="5", ATTEMPT_DELAY_SECONDS="0.2", SWEEP_EVERY_SECONDS="0.5") as house:
        main, *_ = house.pids("celery\0--quiet\0-A\0worker\0worker")
        for _ in range(3):
            with ThreadPoolExecutor(4) as pool:
                answers = pool.map(lambda _: house.deliver(webhook(1)), range(40))
                for pid in house.pids("celery\0--quiet\0-A\0worker\0worker"):
                    if pid != main:
                        os.kill(pid, signal.SIGKILL)
                assert {status for status, _ in answers} == {200}

        house.balance_becomes(ROMASHKA, 120)
        assert house.manage("verify_ledger").returncode == 0


def test_a_lost_broker_folder_loses_nothing(new_house: HouseBuilder) -> None:
    if os.environ.get("REDIS_URL"):
        pytest.skip("this run's houses use Redis")
    with new_house() as house:
        house.deliver(webhook(1))
        shutil.rmtree(house.data_dir / "broker", ignore_errors=True)
        house.deliver(webhook(2))
        house.balance_becomes(ROMASHKA, 3)


# --- without a working broker -----------------------------------------------------------------------


@pytest.fixture
def hung_redis() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refusing_redis() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"redis://127.0.0.1:{port}"


@pytest.mark.parametrize("broken", ["hung_redis", "refusing_redis"])
def test_without_a_working_redis_the_bank_hears_200_and_does_not_wait(
    broken: str, new_house: HouseBuilder, request: pytest.FixtureRequest
) -> None:
    house = new_house(REDIS_URL=request.getfixturevalue(broken))
    assert house.manage("migrate").returncode == 0
    web = (ROOT / "Procfile").read_text().partition("web: ")[2].partition("\n")[0]
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = house.environment | {"PATH": programs}
    with house.log.open("ab") as log:
        process = subprocess.Popen(web, shell=True, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        until(lambda: house.answers("/readyz"), house)
        begun = time.monotonic()
        answers = [house.deliver(webhook(1)) for _ in range(50)]
        seconds = time.monotonic() - begun
    finally:
        process.terminate()
        process.wait(timeout=60)

    assert answers == [(200, {"status": "success"})] * 50
    # One publication to this Redis in each request would take 50 seconds or more.
    assert seconds < 25
    assert json.loads(house.manage("shell", "-v0", "-c", COUNT_RECEIVED).stdout) == 50


COUNT_RECEIVED = "from ingest.models import Webhook; print(Webhook.objects.queued().count())"
