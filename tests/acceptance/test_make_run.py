"""What a newcomer does after `make run`, with its own processes; and that nothing of them stays."""

import json
import os
import re
import signal
from uuid import uuid4

import pytest

from devtools.run import SAMPLE_DELIVERY
from tests.acceptance.conftest import StackBuilder
from tests.harness.launcher_stack import LauncherStack, wait_until
from tests.harness.servers import free_port

INN = "1234567890"
CHATTER = ["Warning", "Traceback", "killed", "No hostname", "superuser", "--------", "Booting", "is starting"]
BALANCE = f"/api/organizations/{INN}/balance/"


def test_sample_is_credited_and_its_repetition_is_not(stack: LauncherStack) -> None:
    sample = json.loads(SAMPLE_DELIVERY)

    assert stack.deliver(sample) == (200, {"status": "success"})
    stack.wait_for_balance(INN, 145000)
    assert stack.deliver(sample) == (200, {"status": "already processed"})
    # A later payment of the same organization: when it is applied, whatever the repetition set off is, too.
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


def test_ledger_and_inbox_agree(stack: LauncherStack) -> None:
    verified = stack.manage("verify_ledger")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_admin_has_a_login_page_in_its_own_colours(stack: LauncherStack) -> None:
    status, page = stack.get("/admin/login/")
    assert status == 200

    sheets = re.findall(r'<link rel="stylesheet" href="([^"]+)"', page.decode())
    assert sheets
    assert {stack.get(sheet)[0] for sheet in sheets} == {200}


def test_printed_password_opens_the_admin(stack: LauncherStack) -> None:
    password = printed_password(stack)
    check = f"User.objects.get(username='admin').check_password('{password}')"

    shell = stack.manage("shell", "-v0", "-c", f"from django.contrib.auth.models import User; print({check})")
    assert shell.stdout == "True\n", shell.stderr


def printed_password(stack: LauncherStack) -> str:
    found = re.search(r"user admin, password (\S+)", stack.output())
    assert found, stack.output()
    return found[1]


def test_started_again_it_goes_on_with_its_data(new_stack: StackBuilder) -> None:
    with new_stack() as stack:
        stack.deliver(json.loads(SAMPLE_DELIVERY))
        stack.wait_for_balance(INN, 145000)
        secret = (stack.data_dir / "secret_key").read_text()
        assert stack.stop(signal.SIGTERM) == 0
        assert stack.pids() == []
        told = stack.output()

        stack.start()
        assert stack.json(BALANCE)["balance"] == 145000
        assert printed_password(stack) not in stack.output().removeprefix(told)
        assert (stack.data_dir / "secret_key").read_text() == secret
        assert (stack.data_dir / "secret_key").stat().st_mode & 0o777 == 0o600


def test_ctrl_c_stops_in_good_order_and_leaves_nothing(new_stack: StackBuilder) -> None:
    with new_stack() as stack:
        assert len(stack.pids()) >= 6  # launcher, web and its two, worker (and, with Redis, its two), beat
        assert stack.stop(signal.SIGINT) == 0
        assert stack.pids() == []
        assert [text for text in CHATTER if text in stack.output()] == []


@pytest.mark.parametrize(("name", "command"), [("web", "gunicorn"), ("worker", "--concurrency")])
def test_death_of_one_process_ends_all(new_stack: StackBuilder, name: str, command: str) -> None:
    with new_stack() as stack:
        os.kill(stack.pids(command)[0], signal.SIGKILL)  # the first is the parent of the others

        assert stack.wait() == 1
        assert stack.pids() == []
        assert f"{name} ended by signal SIGKILL" in stack.output()


def test_says_that_it_is_ready_when_the_worker_is(new_stack: StackBuilder) -> None:
    stack = new_stack()
    stack.launch()
    wait_until(lambda: bool(stack.pids("--concurrency")), stack)
    worker = stack.pids("--concurrency")[0]
    os.kill(worker, signal.SIGSTOP)
    wait_until(lambda: stack.answers("/readyz"), stack)
    looks = iter(range(20))  # of which the launcher has a few meanwhile, too
    wait_until(lambda: stack.reports_ready() or next(looks, None) is None, stack)
    assert not stack.reports_ready()

    os.kill(worker, signal.SIGCONT)
    stack.wait_until_ready()
    assert stack.stop(signal.SIGHUP) == 0
    assert stack.pids() == []


@pytest.mark.skipif(not os.environ.get("REDIS_URL"), reason="production needs a Redis and a database server")
def test_starts_as_in_production(new_stack: StackBuilder) -> None:
    secrets = {"DEBUG": "0", "SECRET_KEY": "0123456789" * 5, "ALLOWED_HOSTS": "prihod.example,127.0.0.1"}
    secrets["WEBHOOK_AUTH"] = "none"
    with new_stack(**secrets, WORKER_PROCESSES="1") as stack:
        stack.deliver(json.loads(SAMPLE_DELIVERY))
        assert stack.get(BALANCE)[0] == 401
        stack.api_key = stack.manage("apikey", "create", "--name", "test", "--read-all").stdout.strip()
        stack.wait_for_balance(INN, 145000)
        assert stack.get("/static/admin/css/base.css")[0] == 200
        wait_until(lambda: '"event": "balance changed"' in stack.output(), stack)
        assert "development" not in stack.output()
        assert not (stack.data_dir / "secret_key").exists()


def test_two_run_side_by_side(stack: LauncherStack, new_stack: StackBuilder) -> None:
    inn = "7707083893"
    webhook = {**json.loads(SAMPLE_DELIVERY), "operation_id": str(uuid4()), "payer_inn": inn}
    with new_stack() as other:
        assert other.deliver({**webhook, "amount": 1}) == (200, {"status": "success"})
        assert stack.deliver({**webhook, "amount": 2}) == (200, {"status": "success"})
        other.wait_for_balance(inn, 1)
        stack.wait_for_balance(inn, 2)
        assert other.stop() == 0
        stack.deliver({**webhook, "operation_id": str(uuid4()), "amount": 3})
        stack.wait_for_balance(inn, 5)


def test_console_tells_what_matters_and_little_else(stack: LauncherStack) -> None:
    inn = "500100732259"
    stack.deliver({**json.loads(SAMPLE_DELIVERY), "operation_id": str(uuid4()), "payer_inn": inn})
    stack.wait_for_balance(inn, 145000)
    wait_until(lambda: "balance changed" in stack.output(), stack)

    assert [text for text in CHATTER if text in stack.output()] == []


def test_second_start_on_one_data_dir_says_so_and_changes_nothing(new_stack: StackBuilder) -> None:
    with new_stack() as stack:
        before = {
            file: file.stat().st_ino for file in stack.data_dir.rglob("*") if "messages" not in file.parts
        }
        for port in (str(free_port()), str(stack.port)):
            second = new_stack(DATA_DIR=str(stack.data_dir), PORT=port)
            second.launch()
            assert second.wait() == 1
            expected = f"Prihod can't start: DATA_DIR={stack.data_dir} is in use by another `make run`\n"
            assert second.output() == expected
        assert {file: file.stat().st_ino for file in before} == before
        assert stack.answers("/readyz")


def test_killed_launcher_takes_its_processes_along(new_stack: StackBuilder) -> None:
    with new_stack() as stack:
        launcher = stack.pids("devtools.run")[0]
        os.kill(launcher, signal.SIGKILL)
        assert stack.wait() == -signal.SIGKILL
        wait_until(lambda: stack.pids() == [], stack)


@pytest.mark.parametrize("host", ["::1", "::"])
def test_ipv6_is_listened_on_and_printed_as_it_is_called(new_stack: StackBuilder, host: str) -> None:
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
            assert stack.answers("/readyz")  # of 127.0.0.1


def test_printed_commands_carry_what_they_need(stack: LauncherStack) -> None:
    needed = f"DATA_DIR={stack.data_dir} PORT={stack.port} "
    assert stack.output().count(needed) >= 1
    assert len(re.findall(r"manage\.py", stack.output())) == stack.output().count(needed)
