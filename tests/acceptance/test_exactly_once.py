"""Exactly-once crediting by real web, worker and scheduler processes, under redeliveries."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from tests.acceptance.conftest import StackBuilder
from tests.acceptance.test_secret_rotation import NEW, OLD, environment_of
from tests.factories import ROMASHKA, VASILEK
from tests.harness.launcher_stack import LauncherStack
from tests.harness.servers import ROOT
from tests.markers import embedded_too, every_database


def webhook(amount: object = 100, inn: str = ROMASHKA, operation_id: str = "") -> dict[str, object]:
    return {
        "operation_id": operation_id or str(uuid4()),
        "amount": amount,
        "payer_inn": inn,
        "document_number": "PAY-328",
        "document_date": "2024-04-27T21:00:00Z",
    }


def assert_exact(stack: LauncherStack, *options: str) -> None:
    simulated = stack.manage("simulate_bank", "--url", stack.url, *options)
    assert simulated.returncode == 0, simulated.stdout + simulated.stderr + stack.output()
    verified = stack.manage("verify_ledger")
    assert verified.returncode == 0, verified.stdout + verified.stderr


@every_database
def test_simulated_bank_finds_every_balance_exact(stack: LauncherStack) -> None:
    assert_exact(
        stack,
        *("--count", "500", "--organizations", "10"),
        *("--duplicates", "0.3", "--conflicts", "0.1", "--invalid", "0.1"),
    )


def test_simulated_bank_reads_with_its_api_key_and_signs_with_the_stacks_secret(
    new_stack: StackBuilder,
) -> None:
    with new_stack(READ_AUTH="key", **environment_of(NEW, OLD)) as stack:
        created = stack.manage("apikey", "create", "--name", "fake bank", "--read-all")
        stack.api_key = created.stdout.removesuffix("\n")
        assert_exact(stack, "--count", "50", "--invalid", "0.2", "--api-key", stack.api_key)

        refused = stack.manage("simulate_bank", "--url", stack.url, "--count", "1")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "401" in refused.stderr
        wrong = stack.manage("simulate_bank", "--count", "1", "--secret", "s3cret")
        assert wrong.returncode == 2
        assert "s3cret" not in wrong.stderr
        assert stack.manage("apikey", "revoke", stack.api_key.split("_")[1]).returncode == 0
        assert stack.get(f"/api/organizations/{ROMASHKA}/balance/")[0] == 401
        assert stack.api_key not in stack.output()


@pytest.mark.long
def test_parallel_workers_keep_a_hot_organization_exact(new_stack: StackBuilder) -> None:
    with new_stack(WORKER_PROCESSES="4", BATCH_SIZE_MAX="10") as stack:
        assert_exact(stack, "--count", "500", "--organizations", "1", "--duplicates", "0.2")


@every_database
def test_simultaneous_deliveries_of_one_operation_credit_once(stack: LauncherStack) -> None:
    delivery = webhook(123.45, inn=VASILEK)

    with ThreadPoolExecutor(20) as pool:
        responses = list(pool.map(lambda _: stack.deliver(delivery), range(100)))

    assert sorted(answer["status"] for _, answer in responses) == ["already processed"] * 99 + ["success"]
    # A later payment of the same organization: once it is applied, all earlier ones are too.
    stack.deliver(webhook(0.55, inn=VASILEK))
    stack.wait_for_balance(VASILEK, 124)
    (newest, first) = stack.json(f"/api/organizations/{VASILEK}/balance/history/")["history"]
    assert (newest["seq"], first["operation_id"]) == (2, delivery["operation_id"])


def test_killed_pool_processes_neither_lose_nor_double_a_payment(new_stack: StackBuilder) -> None:
    if not os.environ.get("REDIS_URL"):
        pytest.skip("the file broker runs a single worker process")
    with new_stack(BATCH_SIZE_MAX="5", RETRY_BACKOFF_SECONDS="0.2", SWEEP_INTERVAL_SECONDS="0.5") as stack:
        stack.deliver(webhook(1))
        stack.wait_for_balance(ROMASHKA, 1)  # a worker whose processes all die while it starts gives up
        main, *_ = stack.pids("celery\0--quiet\0-A\0worker\0worker")
        for _ in range(3):
            with ThreadPoolExecutor(4) as pool:
                responses = pool.map(lambda _: stack.deliver(webhook(1)), range(40))
                for pid in stack.pids("celery\0--quiet\0-A\0worker\0worker"):
                    if pid != main:
                        os.kill(pid, signal.SIGKILL)
                assert {status for status, _ in responses} == {200}

        stack.wait_for_balance(ROMASHKA, 121)
        assert stack.manage("verify_ledger").returncode == 0


@embedded_too
@pytest.mark.skipif(bool(os.environ.get("REDIS_URL")), reason="this run uses Redis")
def test_deleted_broker_folder_loses_no_payment(stack: LauncherStack) -> None:
    stack.deliver(webhook(1))
    shutil.rmtree(stack.data_dir / "broker")
    stack.deliver(webhook(2))
    stack.wait_for_balance(ROMASHKA, 3)


# Without a working broker


@pytest.fixture
def hung_redis() -> Iterator[str]:
    """Accept connections without ever answering."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refusing_redis() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"redis://127.0.0.1:{port}"


@pytest.mark.parametrize("broken", ["hung_redis", pytest.param("refusing_redis", marks=pytest.mark.long)])
def test_unavailable_redis_neither_fails_nor_delays_a_delivery(
    broken: str, new_stack: StackBuilder, request: pytest.FixtureRequest
) -> None:
    stack = new_stack(REDIS_URL=request.getfixturevalue(broken))
    assert stack.manage("migrate").returncode == 0
    web = (ROOT / "Procfile").read_text().partition("web: ")[2].partition("\n")[0]
    with stack.log.open("ab") as log:
        process = subprocess.Popen(web, shell=True, cwd=ROOT, env=stack.environment, stdout=log, stderr=log)
    try:
        stack.wait_until(stack.is_ready)
        start = time.monotonic()
        responses = [stack.deliver(webhook(1)) for _ in range(50)]
        seconds = time.monotonic() - start
    finally:
        process.terminate()
        process.wait(timeout=60)

    assert responses == [(200, {"status": "success"})] * 50
    # One publication to this Redis in each request would take 50 seconds or more.
    assert seconds < 25
    assert json.loads(stack.manage("shell", "-v0", "-c", COUNT_RECEIVED).stdout) == 50


COUNT_RECEIVED = "from ingest.models import Webhook; print(Webhook.objects.queued().count())"
