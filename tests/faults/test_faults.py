"""One scenario of the fault suite, for every test run, and the suite's parts.

test_all_scenarios.py and `make faults` run them all.
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
from django.db import connection

from faults import reporting
from faults.all_scenarios import SCENARIOS
from faults.scenario_run import Result, run_scenario
from tests.harness.bank_client import DeliveryGenerator, DeliveryMix
from tests.harness.clock_shim import wrong_clock
from tests.harness.procfile_stack import missing_servers
from tests.harness.servers import missing_reason, servers_are_required

SEED = 7
IN_EVERY_RUN = "failpoints_in_worker"


@pytest.fixture
def servers(db: None) -> None:
    if not getattr(connection, "mysql_is_mariadb", False):
        pytest.skip("scenarios on MariaDB and Redis run with the suite's MariaDB run")
    if reasons := missing_servers():
        (pytest.fail if servers_are_required() else pytest.skip)("; ".join(reasons))


@pytest.mark.usefixtures("servers")
def test_scenario_finds_no_violation() -> None:
    result = run_scenario(SCENARIOS[IN_EVERY_RUN], SEED)

    assert result.violations == []
    assert result.ok > 50
    assert result.injected


@pytest.mark.process
@pytest.mark.skipif(missing_reason("libfaketime") is not None, reason="needs libfaketime")
def test_process_with_wrong_clock_sleeps_normally(tmp_path: Path) -> None:
    (tmp_path / "clock").write_text("-60m")
    environment = {name: value.replace("{folder}", str(tmp_path)) for name, value in wrong_clock().items()}
    program = "from time import *; b = monotonic(); sleep(0.1); print(monotonic() - b, time())"

    output = subprocess.check_output(
        [sys.executable, "-c", program], env={**os.environ, **environment}, text=True
    )

    slept, moment = map(float, output.split())
    assert 0.1 <= slept < 5
    assert 3500 < time.time() - moment < 3700


def test_scenarios_that_judge_by_seconds_run_exclusively() -> None:
    by_seconds = re.compile(r"require_latency_as_in|require_others_applied|seconds <")
    judges = {name for name, each in SCENARIOS.items() if by_seconds.search(inspect.getsource(each.action))}

    assert {"redis_stopped", "hot_row_locked", "redis_absent"} < judges
    assert {name for name in judges if not SCENARIOS[name].exclusive} == set()


def test_saved_run_renders_as_markdown_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "RESULTS", tmp_path)
    result = Result("calm", 7, 12, 10, 1, 1, 5, [(0.5, "kill -9")], [0.5], 0.25, 9.0, ["lost"])
    summary = {"seed": 7, "totals": reporting.totals([result])}
    saved = json.loads(reporting.save_results("seven", summary, [result]).read_text())

    assert reporting.markdown_table({**saved, "when": "2026-11-24T11:00:00+00:00"}).splitlines() == [
        "Seed 7; 2026-11-24.",
        "",
        "| scenario | requests | ok | refused | unknown | faults | drained after | verdict |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
        "| `calm` | 12 | 10 | 1 | 1 | 1 | 0.2 s | red |",
        "| in all | 12 | 10 | 1 | 1 | 1 | | 1 red |",
    ]
    missed = {"bug": "no_key", "description": "a key is dropped", "detected_by": ""}
    assert reporting.markdown_table({"when": "2026-11-24", "seed": 5, "runs": [missed]}).endswith(
        "| `no_key` | a key is dropped | NOT DETECTED |"
    )


def test_same_seed_generates_the_same_deliveries() -> None:
    first, second, other = (bodies(seed) for seed in (1, 1, 2))

    assert first == second
    assert first != other


def bodies(seed: int) -> list[bytes]:
    deliveries = DeliveryGenerator(random.Random(seed), DeliveryMix(poison=0.1))
    return [deliveries.next().body for _ in range(500)]
