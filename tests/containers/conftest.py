"""The deployment that all checks share, and the figures that they measure."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.containers.deployment import Deployment
from tests.containers.load import PAYER, Load
from tests.harness.servers import free_port
from tests.harness.wait import wait_until

BODY = (
    b'{"operation_id": "5b4f0c1e-9a53-4c39-8f0e-0d3c52a8f3f1", "amount": 100, "payer_inn": "7707083893",'
    b' "document_number": "PAY-1", "document_date": "2024-04-27T21:00:00Z"}'
)
FIGURES: list[str] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("measured")
    for figure in FIGURES:
        terminalreporter.write_line(figure)


@pytest.fixture(scope="session")
def measured() -> Callable[[str], None]:
    """Return a function that adds a line to the summary."""
    return FIGURES.append


@pytest.fixture(scope="session")
def timed(measured: Callable[[str], None]) -> Callable[[str, Callable[[], object]], None]:
    """Return a function that measures a step in seconds."""

    def run(what: str, step: Callable[[], object]) -> None:
        start = time.monotonic()
        step()
        measured(f"{what}: {time.monotonic() - start:.1f} s")

    return run


@pytest.fixture(scope="session")
def deployment(
    tmp_path_factory: pytest.TempPathFactory, timed: Callable[[str, Callable[[], object]], None]
) -> Iterator[Deployment]:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "version"], check=False, capture_output=True).returncode
    ):
        pytest.fail(
            "No Docker engine answers. Install Docker with Compose 2 "
            "(https://docs.docker.com/engine/install/), or, on Debian 12 as root: "
            "tests/containers/private_engine.sh make compose-check",
            pytrace=False,
        )
    deployment = Deployment(tmp_path_factory.mktemp("deployment") / "prihod", free_port())
    try:
        timed("build", lambda: deployment.compose("build"))
        timed("first start, until all are healthy", deployment.up)
        yield deployment
    finally:
        deployment.compose("--profile", "proxy", "down", "--volumes", "--timeout", "5")


@pytest.fixture(scope="session")
def api_key(deployment: Deployment) -> str:
    return deployment.manage("apikey", "create", "--name", "check", "--read-all").strip()


@pytest.fixture(scope="session")
def balance(deployment: Deployment, api_key: str) -> Callable[[str], int]:
    """Return a function that returns the balance of an INN; 0 without an organization."""

    def read(inn: str) -> int:
        answer = deployment.get(f"/api/organizations/{inn}/balance/", api_key)
        return int(json.loads(answer.body)["balance"]) if answer.status == 200 else 0

    return read


@pytest.fixture(scope="session")
def acknowledged() -> list[Load]:
    """Return the loads of all checks so far."""
    return []


@pytest.fixture
def check_ledger(
    deployment: Deployment, balance: Callable[[str], int], acknowledged: list[Load]
) -> Callable[[], None]:
    """Return a function that checks the endpoint, that nothing acknowledged is lost, and the whole ledger."""

    def check() -> None:
        assert deployment.deliver(BODY).body == '{"status":"already processed"}'
        assert balance("7707083893") == 100
        total = sum(load.acknowledged for load in acknowledged)
        wait_until(lambda: balance(PAYER) >= total, f"{total} deliveries posted")
        assert balance(PAYER) == total
        deployment.manage("verify_ledger")

    return check
