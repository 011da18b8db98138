"""First steps after `make run`, on real processes, which must all end with it."""

import json
import os
import re
import signal
from uuid import uuid4

import pytest

from devtools.run import SAMPLE_DELIVERY
from tests.acceptance.conftest import StackBuilder
from tests.harness.launcher_stack import LauncherStack
from tests.harness.servers import free_port
from tests.markers import embedded_too, every_database, sqlite_run_only

INN = "1234567890"
NOISE = ["Warning", "Traceback", "killed", "No hostname", "superuser", "--------", "Booting", "is starting"]
BALANCE = f"/api/organizations/{INN}/balance/"


@every_database
def test_sample_is_credited_once(stack: LauncherStack) -> None:
    sample = json.loads(SAMPLE_DELIVERY)

    assert stack.deliver(sample) == (200, {"status": "success"})
    stack.wait_for_balance(INN, 145000)
    assert stack.deliver(sample) == (200, {"status": "already processed"})
    # A later payment of the same organization: once it is applied, the duplicate has been processed too.
    assert stack.deliver({**sample, "operation_id": str(uuid4()), "amount": 0.5}) == (
        200,
        {"status": "success"},
    )
    stack.wait_for_balance(INN, 145000.5)

    history = stack.json(f"{BALANCE}history/")["history"]
    assert [(line["amount"], line["balance_after"]) for line in history] == [
        (0.5, 145000.5),
        (145000, 145000),
    ]
    assert stack.json(f"/api/operations/{sample['operation_id']}/")["status"] == "applied"


@every_database
def test_ledger_verification_passes(stack: LauncherStack) -> None:
    verified = stack.manage("verify_ledger")
    assert verified.returncode == 0, verified.stdout + verified.stderr


@sqlite_run_only
def test_admin_login_page_serves_its_stylesheets(stack: LauncherStack) -> None:
    status, page = stack.get("/admin/login/")
    assert status == 200

    sheets = re.findall(r'<link rel="stylesheet" href="([^"]+)"', page.decode())
    assert sheets
    assert {stack.get(sheet)[0] for sheet in sheets} == {200}


@sqlite_run_only
def test_printed_password_is_the_admins(stack: LauncherStack) -> None:
    password = printed_password(stack)
    check = f"User.objects.get(username='admin').check_password('{password}')"

    shell = stack.manage("shell", "-v0", "-c", f"from django.contrib.auth.models import User; print({check})")
    assert shell.stdout == "True\n", shell.stderr


def printed_password(stack: LauncherStack) -> str:
    found = re.search(r"user admin, password (\S+)", stack.output())
    assert found, stack.output()
    return found[1]


@sqlite_run_only
def test_restart_keeps_data_and_secret_key(new_stack: StackBuilder) -> None:
    with new_stack(empty=True) as stack:
        assert "migrations applied" in stack.output()
        stack.deliver(json.loads(SAMPLE_DELIVERY))
        stack.wait_for_balance(INN, 145000)
        secret = (stack.data_dir / "secret_key").read_text()
        assert stack.stop(signal.SIGTERM) == 0
        assert stack.pids() == []
        output_before = stack.output()

        stack.start()
        assert stack.json(BALANCE)["balance"] == 145000
        assert printed_password(stack) not in stack.output().removeprefix(output_before)
        assert (stack.data_dir / "secret_key").read_text() == secret
        assert (stack.data_dir / "secret_key").stat().st_mode & 0o777 == 0o600


@sqlite_run_only
@pytest.mark.parametrize(
    ("name", "command"),
    [pytest.param("web", "gunicorn", marks=pytest.mark.long), ("worker", "--concurrency")],
)
def test_death_of_one_process_stops_all(new_stack: StackBuilder, name: str, command: str) -> None:
    with new_stack() as stack:
        os.kill(stack.pids(command)[0], signal.SIGKILL)  # the first is the parent of the others

        assert stack.wait() == 1
        assert stack.pids() == []
        assert f"{name} ended by signal SIGKILL" in stack.output()


@sqlite_run_only
def test_readiness_is_reported_once_the_worker_is_ready(new_stack: StackBuilder) -> None:
    stack = new_stack()
    stack.launch()
    stack.wait_until(lambda: bool(stack.pids("--concurrency")))
    worker = stack.pids("--concurrency")[0]
    with stack.no_write():
        os.kill(worker, signal.SIGSTOP)
    stack.wait_until(stack.is_ready)
    polls = iter(range(50))  # the launcher polls several times meanwhile
    stack.wait_until(lambda: stack.reports_ready() or next(polls, None) is None)
    assert not stack.reports_ready()

    os.kill(worker, signal.SIGCONT)
    stack.wait_until_ready()
    # Below nohup the launcher ignores a terminal's end, too.
    is_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert stack.stop(signal.SIGTERM if is_ignored else signal.SIGHUP) == 0
    assert stack.pids() == []


@pytest.mark.skipif(not os.environ.get("REDIS_URL"), reason="production needs Redis and a database server")
def test_production_settings_start(new_stack: StackBuilder) -> None:
    secrets = {"DEBUG": "0", "SECRET_KEY": "0123456789" * 5, "ALLOWED_HOSTS": "prihod.example,127.0.0.1"}
    secrets["WEBHOOK_AUTH"] = "none"
    with new_stack(**secrets, WORKER_PROCESSES="1") as stack:
        stack.deliver(json.loads(SAMPLE_DELIVERY))
        assert stack.get(BALANCE)[0] == 401
        stack.api_key = stack.manage("apikey", "create", "--name", "test", "--read-all").stdout.strip()
        stack.wait_for_balance(INN, 145000)
        assert stack.get("/static/admin/css/base.css")[0] == 200
        stack.wait_until(lambda: '"event": "balance changed"' in stack.output())
        assert "development" not in stack.output()
        assert not (stack.data_dir / "secret_key").exists()


@sqlite_run_only
def test_ctrl_c_stops_every_process_of_one_of_two_stacks(
    stack: LauncherStack, new_stack: StackBuilder
) -> None:
    inn = "7707083893"
    webhook = {**json.loads(SAMPLE_DELIVERY), "operation_id": str(uuid4()), "payer_inn": inn}
    with new_stack() as other:
        assert other.deliver({**webhook, "amount": 1}) == (200, {"status": "success"})
        assert stack.deliver({**webhook, "amount": 2}) == (200, {"status": "success"})
        other.wait_for_balance(inn, 1)
        stack.wait_for_balance(inn, 2)
        assert len(other.pids()) >= 5  # launcher, web and its one, worker (and, with Redis, its two), beat
        assert other.stop(signal.SIGINT) == 0
        assert other.pids() == []
        assert [text for text in NOISE if text in other.output()] == []
        stack.deliver({**webhook, "operation_id": str(uuid4()), "amount": 3})
        stack.wait_for_balance(inn, 5)


@embedded_too
def test_console_output_has_no_noise(stack: LauncherStack) -> None:
    inn = "500100732259"
    stack.deliver({**json.loads(SAMPLE_DELIVERY), "operation_id": str(uuid4()), "payer_inn": inn})
    stack.wait_for_balance(inn, 145000)
    stack.wait_until(lambda: "balance changed" in stack.output())

    assert [text for text in NOISE if text in stack.output()] == []


@sqlite_run_only
def test_second_start_on_one_data_dir_is_refused_without_changes(
    stack: LauncherStack, new_stack: StackBuilder
) -> None:
    before = {file: file.stat().st_ino for file in stack.data_dir.rglob("*") if "messages" not in file.parts}
    for port in (str(free_port()), str(stack.port)):
        second = new_stack(DATA_DIR=str(stack.data_dir), PORT=port)
        second.launch()
        assert second.wait() == 1
        expected = f"Prihod can't start: DATA_DIR={stack.data_dir} is in use by another `make run`\n"
        assert second.output() == expected
    assert {file: file.stat().st_ino for file in before} == before
    assert stack.is_ready()


def test_killed_launcher_stops_its_processes(new_stack: StackBuilder) -> None:
    with new_stack() as stack:
        launcher = stack.pids("devtools.run")[0]
        os.kill(launcher, signal.SIGKILL)
        assert stack.wait() == -signal.SIGKILL
        stack.wait_until(lambda: stack.pids() == [], "the end of all processes")


@pytest.mark.parametrize("host", ["::1", pytest.param("::", marks=pytest.mark.long)])
def test_ipv6_host_is_bound_and_printed_in_brackets(new_stack: StackBuilder, host: str) -> None:
    stack = new_stack(HOST=host)
    with stack:
        url = f"http://[::1]:{stack.port}"
        assert f"site      {url}\n" in stack.output()
        assert (
            f"curl -H 'Content-Type: application/json' -d '{SAMPLE_DELIVERY}' {url}/api/webhook/bank/"
            in stack.output()
        )
        simulated = stack.manage("simulate_bank", "--count", "5")
        assert simulated.returncode == 0, simulated.stdout + simulated.stderr
        if host == "::":
            assert stack.is_ready()  # of 127.0.0.1


@sqlite_run_only
def test_printed_commands_carry_their_environment(stack: LauncherStack) -> None:
    needed = f"DATA_DIR={stack.data_dir} PORT={stack.port} "
    assert stack.output().count(needed) >= 1
    assert len(re.findall(r"manage\.py", stack.output())) == stack.output().count(needed)
