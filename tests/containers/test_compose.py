"""Build, start, break, update, restore and stop the containers, in this order, on one deployment.

Needs Docker with Compose on this machine, and root, which kills processes inside the containers.
"""

import os
import signal
from collections.abc import Callable

import pytest

from tests.containers.conftest import BODY
from tests.containers.deployment import OWN, Deployment
from tests.containers.load import Load
from tests.harness.wait import wait_until

pytestmark = [pytest.mark.process, pytest.mark.timeout(1800)]

MYSQL = 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD"'
UNPRIVILEGED = """
test "$(id -u)" = 10001
grep -q "^CapBnd:.0000000000000000" /proc/1/status
grep -q "^NoNewPrivs:.1" /proc/1/status
! touch /app/x 2>/dev/null
! touch /opt/venv/x 2>/dev/null
touch /tmp/x && rm /tmp/x
"""


def test_two_workers_run(deployment: Deployment) -> None:
    assert len(deployment.containers("worker")) == 2


@pytest.mark.parametrize("service", OWN)
def test_container_has_no_privileges(deployment: Deployment, service: str) -> None:
    deployment.compose("exec", "-T", service, "sh", "-ec", UNPRIVILEGED)


def test_delivery_needs_a_signature_and_is_posted(
    deployment: Deployment, balance: Callable[[str], int]
) -> None:
    assert deployment.deliver(BODY, signed=False).status == 401
    assert deployment.deliver(BODY).body == '{"status":"success"}'

    assert deployment.get("/api/organizations/7707083893/balance/").status == 401
    wait_until(lambda: balance("7707083893") == 100, "posted")


def test_simulated_bank_finds_exact_balances(deployment: Deployment, api_key: str) -> None:
    simulate = "printenv KEY | python manage.py simulate_bank --api-key - --count 200 --duplicates 0.1"
    deployment.compose("exec", "-T", "--env", f"KEY={api_key}", "web", "sh", "-c", simulate)


@pytest.mark.parametrize("path", ["/admin/login/", "/healthz", "/readyz", "/api/docs/"])
def test_page_is_served(deployment: Deployment, path: str) -> None:
    assert deployment.get(path).status == 200


@pytest.mark.parametrize(("service", "port"), [("web", 8000), ("worker", 9100), ("beat", 9100)])
def test_prometheus_can_scrape_by_address(deployment: Deployment, service: str, port: int) -> None:
    for container in deployment.containers(service):
        origin = f"http://{deployment.address(container)}:{port}"
        answer = deployment.get("/metrics", deployment.metrics_token, origin=origin)
        assert answer.status == 200
        assert "prihod_" in answer.body


def test_commands_leave_no_metrics_files(deployment: Deployment) -> None:
    def files() -> int:
        return len(deployment.compose("exec", "-T", "web", "ls", "/tmp/metrics").split())

    before = files()
    for _ in range(3):
        deployment.manage("apikey", "list")
    assert files() == before


@pytest.mark.parametrize("service", ["worker", "beat", "redis", "mysql", "web"])
def test_kill_of_a_main_process_under_load_loses_nothing(
    deployment: Deployment,
    service: str,
    check_ledger: Callable[[], None],
    acknowledged: list[Load],
    measured: Callable[[str], None],
) -> None:
    container = deployment.containers(service)[0]
    killed = deployment.inspect(container)["State"]["Pid"]
    with Load(deployment, deployment.url) as load:
        acknowledged.append(load)
        wait_until(lambda: load.acknowledged > 100, "load")
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: deployment.inspect(container)["State"]["Pid"] not in {0, killed}, "a new process")
        for name in (service, "web"):
            deployment.wait_until_healthy(name)

    measured(f"kill -9 of {service}: {load}")
    check_ledger()


def test_log_lines_are_json(deployment: Deployment) -> None:
    lines = deployment.compose("logs", "--no-log-prefix", *OWN).splitlines()
    assert len(lines) > 3
    not_json = [line for line in map(str.strip, lines) if line and not line.startswith(("{", "worker: Warm"))]
    assert not_json == []


def test_up_without_a_change_recreates_nothing(deployment: Deployment) -> None:
    before = deployment.containers(*OWN)
    for arguments in ([], ["--build"], []):
        deployment.up(*arguments)
        assert deployment.containers(*OWN) == before, arguments


def test_documented_update_replaces_the_code(
    deployment: Deployment,
    check_ledger: Callable[[], None],
    acknowledged: list[Load],
    measured: Callable[[str], None],
    timed: Callable[[str, Callable[[], object]], None],
) -> None:
    deployment.change_code("# first change")

    def update() -> None:
        deployment.compose("build")
        deployment.compose("run", "--rm", "migrate")
        deployment.replace("web")
        deployment.replace("worker", "beat")

    with Load(deployment, deployment.url) as load:
        acknowledged.append(load)
        timed("update with one web", update)

    measured(f"update with one web: {load}")
    for service in OWN:
        deployment.compose("exec", "-T", service, "grep", "-q", "# first change", "ledger/__init__.py")
    check_ledger()


def test_down_and_up_keep_the_data(
    deployment: Deployment,
    check_ledger: Callable[[], None],
    timed: Callable[[str, Callable[[], object]], None],
) -> None:
    timed("down", lambda: deployment.compose("down"))
    timed("up, with data", deployment.up)
    check_ledger()


def test_backup_is_restored_into_empty_volumes(
    deployment: Deployment,
    check_ledger: Callable[[], None],
    timed: Callable[[str, Callable[[], object]], None],
) -> None:
    dump = f"{MYSQL} mysqldump --single-transaction --set-gtid-purged=OFF prihod"
    backup = deployment.compose("exec", "-T", "mysql", "sh", "-c", dump)
    deployment.compose("down", "--volumes")

    def restore() -> None:
        deployment.compose("up", "--detach", "--wait", "mysql", "redis")
        deployment.compose("exec", "-T", "mysql", "sh", "-c", f"{MYSQL} mysql prihod", stdin=backup)
        deployment.up()

    timed("restore into empty volumes, until all are healthy", restore)
    check_ledger()


def test_everything_stops_in_good_order(deployment: Deployment) -> None:
    deployment.compose("stop")
    codes = deployment.compose("ps", "--all", "--format", "{{.Service}} {{.ExitCode}}").splitlines()
    logs = deployment.compose("logs", "--tail", "20", "mysql")
    assert [code for code in codes if not code.endswith(" 0")] == [], logs
