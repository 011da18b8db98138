"""A few bad days out of the fault suite, and two planted bugs, short enough for every run of the tests.

`make faults` has them all. On MariaDB and Redis they run with the suite's run on MariaDB, on servers of their
own; the embedded house has its turn with SQLite.
"""

import inspect
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from faults import reporting
from faults.clock import wrong_clock
from faults.scenario_run import Result, run_scenario
from faults.scenarios import SCENARIOS
from faults.seeded_bugs import SEEDED_BUGS
from tests.harness.bank_client import DeliveryGenerator, DeliveryMix
from tests.harness.procfile_stack import missing_servers
from tests.harness.servers import lacking, servers_are_required

SEED = 7
ON_SQLITE = settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
ON_SERVERS = ["web_child_killed", "mariadb_killed", "rings_lost", "fault_points_in_the_worker"]
PLANTED_HERE = ["no_ledger_key", "retry_posts_again"]


@pytest.fixture
def servers(db: None) -> None:
    if not getattr(connection, "mysql_is_mariadb", False):
        pytest.skip("the faults of MariaDB and Redis have their turn in the run on MariaDB")
    if lacks := missing_servers():
        (pytest.fail if servers_are_required() else pytest.skip)("; ".join(lacks))


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("name", ON_SERVERS)
def test_nothing_is_lost_and_nothing_is_counted_twice(name: str) -> None:
    result = run_scenario(SCENARIOS[name], SEED)

    assert result.broken == []
    assert result.ok > 50
    assert result.strikes


@pytest.mark.skipif(not ON_SQLITE, reason="the embedded house has its turn in the run on SQLite")
def test_the_embedded_house_loses_nothing_either() -> None:
    result = run_scenario(SCENARIOS["embedded_processes_killed"], SEED)

    assert result.broken == []
    assert result.ok > 50


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("name", PLANTED_HERE)
def test_the_checker_sees_a_planted_bug(name: str) -> None:
    bug = next(bug for bug in SEEDED_BUGS if bug.name == name)

    _, seen = bug.play(SEED)

    assert seen


@pytest.mark.skipif(lacking("libfaketime") is not None, reason="needs libfaketime")
def test_a_process_whose_clock_is_wrong_sleeps_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "clock").write_text("-60m")
    environment = {name: value.replace("{folder}", str(tmp_path)) for name, value in wrong_clock().items()}
    program = "from time import *; b = monotonic(); sleep(0.1); print(monotonic() - b, time())"

    said = subprocess.check_output(
        [sys.executable, "-c", program], env={**os.environ, **environment}, text=True
    )

    slept, moment = map(float, said.split())
    assert 0.1 <= slept < 5
    assert 3500 < time.time() - moment < 3700


def test_who_judges_by_seconds_plays_alone() -> None:
    judging = re.compile(r"require_answers_as_in|require_others_applied|seconds <")
    judges = {name for name, each in SCENARIOS.items() if judging.search(inspect.getsource(each.action))}

    assert {"redis_stopped", "hot_row_held", "redis_absent"} < judges
    assert {name for name in judges if not SCENARIOS[name].alone} == set()


def test_a_kept_run_becomes_the_table_of_the_documentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "RESULTS", tmp_path)
    result = Result("calm", 7, 12, 10, 1, 1, 5, [(0.5, "kill -9")], [0.5], 0.25, 9.0, ["lost"])
    figures = {"seed": 7, "totals": reporting.totals([result])}
    kept = json.loads(reporting.save_results("seven", figures, [result]).read_text())

    assert reporting.markdown_table({**kept, "when": "2026-11-24T11:00:00+00:00"}).splitlines() == [
        "Seed 7; 2026-11-24.",
        "",
        "| scenario | requests | ok | refused | unknown | faults | quiet after | verdict |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
        "| `calm` | 12 | 10 | 1 | 1 | 1 | 0.2 s | red |",
        "| in all | 12 | 10 | 1 | 1 | 1 | | 1 red |",
    ]
    planted = {"planted": "no_key", "sentence": "a key is gone", "seen_by": ""}
    assert reporting.markdown_table({"when": "2026-11-24", "seed": 5, "runs": [planted]}).endswith(
        "| `no_key` | a key is gone | NOT SEEN |"
    )


def test_the_same_seed_repeats_the_deliveries() -> None:
    first, second, other = (bodies(seed) for seed in (1, 1, 2))

    assert first == second
    assert first != other


def bodies(seed: int) -> list[bytes]:
    deliveries = DeliveryGenerator(random.Random(seed), DeliveryMix(poison=0.1))
    return [deliveries.next().body for _ in range(500)]
