"""What a newcomer does after `make run`, with its own processes; and that nothing of them stays."""

import json
import os
import re
import signal
from uuid import uuid4

import pytest

from config.launcher import SAMPLE
from tests.acceptance.conftest import HouseBuilder
from tests.acceptance.house import House, until
from tests.servers import free_port

INN = "1234567890"
CHATTER = ["Warning", "Traceback", "killed", "No hostname", "superuser", "--------", "Booting", "is starting"]
BALANCE = f"/api/organizations/{INN}/balance/"


def test_sample_is_credited_and_its_repetition_is_not(house: House) -> None:
    sample = json.loads(SAMPLE)

    assert house.deliver(sample) == (200, {"status": "success"})
    house.balance_becomes(INN, 145000)
    assert house.deliver(sample) == (200, {"status": "already processed"})
    # A later payment of the same organization: when it is applied, whatever the repetition set off is, too.
    assert house.deliver({**sample, "operation_id": str(uuid4()), "amount": 0.5}) == (
        200,
        {"status": "success"},
    )
    house.balance_becomes(INN, 145000.5)

    history = house.json(f"{BALANCE}history/")["history"]
    assert [(line["amount"], line["balance_after"]) for line in history] == [
        (0.5, 145000.5),
        (145000, 145000),
    ]
    assert house.json(f"/api/operations/{sample['operation_id']}/")["status"] == "applied"


def test_ledger_and_inbox_agree(house: House) -> None:
    verified = house.manage("verify_ledger")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_admin_has_a_login_page_in_its_own_colours(house: House) -> None:
    status, page = house.get("/admin/login/")
    assert status == 200

    sheets = re.findall(r'<link rel="stylesheet" href="([^"]+)"', page.decode())
    assert sheets
    assert {house.get(sheet)[0] for sheet in sheets} == {200}


def test_printed_password_opens_the_admin(house: House) -> None:
    password = printed_password(house)
    check = f"User.objects.get(username='admin').check_password('{password}')"

    shell = house.manage("shell", "-v0", "-c", f"from django.contrib.auth.models import User; print({check})")
    assert shell.stdout == "True\n", shell.stderr


def printed_password(house: House) -> str:
    found = re.search(r"user admin, password (\S+)", house.output())
    assert found, house.output()
    return found[1]


def test_started_again_it_goes_on_with_its_data(new_house: HouseBuilder) -> None:
    with new_house() as house:
        house.deliver(json.loads(SAMPLE))
        house.balance_becomes(INN, 145000)
        secret = (house.data_dir / "secret_key").read_text()
        assert house.stop(signal.SIGTERM) == 0
        assert house.pids() == []
        told = house.output()

        house.start()
        assert house.json(BALANCE)["balance"] == 145000
        assert printed_password(house) not in house.output().removeprefix(told)
        assert (house.data_dir / "secret_key").read_text() == secret
        assert (house.data_dir / "secret_key").stat().st_mode & 0o777 == 0o600


def test_ctrl_c_stops_in_good_order_and_leaves_nothing(new_house: HouseBuilder) -> None:
    with new_house() as house:
        assert len(house.pids()) >= 6  # launcher, web and its two, worker (and, with Redis, its two), beat
        assert house.stop(signal.SIGINT) == 0
        assert house.pids() == []
        assert [text for text in CHATTER if text in house.output()] == []


@pytest.mark.parametrize(("name", "command"), [("web", "gunicorn"), ("worker", "--concurrency")])
def test_death_of_one_process_ends_all(new_house: HouseBuilder, name: str, command: str) -> None:
    with new_house() as house:
        os.kill(house.pids(command)[0], signal.SIGKILL)  # the first is the parent of the others

        assert house.wait() == 1
        assert house.pids() == []
        assert f"{name} ended by signal SIGKILL" in house.output()


def test_says_that_it_is_ready_when_the_worker_is(new_house: HouseBuilder) -> None:
    house = new_house()
    house.launch()
    until(lambda: bool(house.pids("--concurrency")), house)
    worker = house.pids("--concurrency")[0]
    os.kill(worker, signal.SIGSTOP)
    until(lambda: house.answers("/readyz"), house)
    looks = iter(range(20))  # of which the launcher has a few meanwhile, too
    until(lambda: house.says_it_is_ready() or next(looks, None) is None, house)
    assert not house.says_it_is_ready()

    os.kill(worker, signal.SIGCONT)
    house.until_ready()
    assert house.stop(signal.SIGHUP) == 0
    assert house.pids() == []


@pytest.mark.skipif(not os.environ.get("REDIS_URL"), reason="production needs a Redis and a database server")
def test_starts_as_in_production(new_house: HouseBuilder) -> None:
    secrets = {"DEBUG": "0", "SECRET_KEY": "0123456789" * 5, "ALLOWED_HOSTS": "prihod.example,127.0.0.1"}
    secrets["WEBHOOK_AUTH"] = "none"
    with new_house(**secrets, WORKER_PROCESSES="1") as house:
        house.deliver(json.loads(SAMPLE))
        assert house.get(BALANCE)[0] == 401
        house.api_key = house.manage("apikey", "create", "--name", "test", "--read-all").stdout.strip()
        house.balance_becomes(INN, 145000)
        assert house.get("/static/admin/css/base.css")[0] == 200
        until(lambda: '"event": "balance changed"' in house.output(), house)
        assert "development" not in house.output()
        assert not (house.data_dir / "secret_key").exists()


def test_two_run_side_by_side(house: House, new_house: HouseBuilder) -> None:
    inn = "7707083893"
    webhook = {**json.loads(SAMPLE), "operation_id": str(uuid4()), "payer_inn": inn}
    with new_house() as other:
        assert other.deliver({**webhook, "amount": 1}) == (200, {"status": "success"})
        assert house.deliver({**webhook, "amount": 2}) == (200, {"status": "success"})
        other.balance_becomes(inn, 1)
        house.balance_becomes(inn, 2)
        assert other.stop() == 0
        house.deliver({**webhook, "operation_id": str(uuid4()), "amount": 3})
        house.balance_becomes(inn, 5)


def test_console_tells_what_matters_and_little_else(house: House) -> None:
    inn = "500100732259"
    house.deliver({**json.loads(SAMPLE), "operation_id": str(uuid4()), "payer_inn": inn})
    house.balance_becomes(inn, 145000)
    until(lambda: "balance changed" in house.output(), house)

    assert [text for text in CHATTER if text in house.output()] == []


def test_second_start_on_one_data_dir_says_so_and_changes_nothing(new_house: HouseBuilder) -> None:
    with new_house() as house:
        before = {
            file: file.stat().st_ino for file in house.data_dir.rglob("*") if "messages" not in file.parts
        }
        for port in (str(free_port()), str(house.port)):
            second = new_house(DATA_DIR=str(house.data_dir), PORT=port)
            second.launch()
            assert second.wait() == 1
            expected = f"Prihod can't start: DATA_DIR={house.data_dir} is in use by another `make run`\n"
            assert second.output() == expected
        assert {file: file.stat().st_ino for file in before} == before
        assert house.answers("/readyz")


def test_killed_launcher_takes_its_processes_along(new_house: HouseBuilder) -> None:
    with new_house() as house:
        launcher = house.pids("config.launcher")[0]
        os.kill(launcher, signal.SIGKILL)
        assert house.wait() == -signal.SIGKILL
        until(lambda: house.pids() == [], house)


@pytest.mark.parametrize("host", ["::1", "::"])
def test_ipv6_is_listened_on_and_printed_as_it_is_called(new_house: HouseBuilder, host: str) -> None:
    house = new_house(HOST=host)
    with house:
        url = f"http://[::1]:{house.port}"
        assert f"site      {url}\n" in house.output()
        assert (
            f"curl -H 'Content-Type: application/json' -d '{SAMPLE}' {url}/api/webhook/bank/"
            in house.output()
        )
        simulated = house.manage("simulate_bank", "--count", "5")
        assert simulated.returncode == 0, simulated.stdout + simulated.stderr
        if host == "::":
            assert house.answers("/readyz")  # of 127.0.0.1


def test_printed_commands_carry_what_they_need(house: House) -> None:
    needed = f"DATA_DIR={house.data_dir} PORT={house.port} "
    assert house.output().count(needed) >= 1
    assert len(re.findall(r"manage\.py", house.output())) == house.output().count(needed)
