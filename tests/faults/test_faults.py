"""A few bad days out of the fault suite, and two planted bugs, short enough for every run of the tests.

`make faults` has them all. On MariaDB and Redis they run with the suite's run on MariaDB, on servers of their
own; the embedded house has its turn with SQLite.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.conf import settings

from faults.client import Deliveries, Mix
from faults.clock import clock
from faults.house import missing
from faults.planted import PLANTED
from faults.scenarios import SCENARIOS
from faults.stage import play
from tests.servers import lacking, servers_are_required

SEED = 7
ON_SQLITE = settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
ON_SERVERS = ["web_child_killed", "mariadb_killed", "rings_lost", "fault_points_in_the_worker"]
PLANTED_HERE = ["no_ledger_key", "retry_posts_again"]


@pytest.fixture
def servers() -> None:
    if ON_SQLITE:
        pytest.skip("the faults of MariaDB and Redis have their turn in the run on MariaDB")
    if lacks := missing():
        (pytest.fail if servers_are_required() else pytest.skip)("; ".join(lacks))


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("name", ON_SERVERS)
def test_nothing_is_lost_and_nothing_is_counted_twice(name: str) -> None:
    result = play(SCENARIOS[name], SEED)

    assert result.broken == []
    assert result.ok > 50
    assert result.strikes


@pytest.mark.skipif(not ON_SQLITE, reason="the embedded house has its turn in the run on SQLite")
def test_the_embedded_house_loses_nothing_either() -> None:
    result = play(SCENARIOS["embedded_processes_killed"], SEED)

    assert result.broken == []
    assert result.ok > 50


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("name", PLANTED_HERE)
def test_the_checker_sees_a_planted_bug(name: str) -> None:
    bug = next(bug for bug in PLANTED if bug.name == name)

    _, seen = bug.play(SEED)

    assert seen


@pytest.mark.skipif(lacking("libfaketime") is not None, reason="needs libfaketime")
def test_a_process_whose_clock_is_wrong_sleeps_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "clock").write_text("-60m")
    environment = {name: value.replace("{folder}", str(tmp_path)) for name, value in clock().items()}
    program = "from time import *; b = monotonic(); sleep(0.1); print(monotonic() - b, time())"

    said = subprocess.check_output(
        [sys.executable, "-c", program], env={**os.environ, **environment}, text=True
    )

    slept, moment = map(float, said.split())
    assert 0.1 <= slept < 5
    assert 3500 < time.time() - moment < 3700


def test_the_same_seed_repeats_the_deliveries() -> None:
    first, second, other = (bodies(seed) for seed in (1, 1, 2))

    assert first == second
    assert first != other


def bodies(seed: int) -> list[bytes]:
    deliveries = Deliveries(random.Random(seed), Mix(poison=0.1))
    return [deliveries.next().body for _ in range(500)]
