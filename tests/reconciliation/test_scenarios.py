"""Every scenario of matching_scenarios.json ends in the buckets and sums that it expects."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.reconciliation.scenarios import play

FILE = Path(__file__).parent / "matching_scenarios.json"
SCENARIOS = json.loads(FILE.read_text())


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["name"])
@pytest.mark.django_db
def test_scenario_ends_as_expected(scenario: Any) -> None:
    assert play(scenario) == []


@pytest.mark.process
def test_command_prints_what_differs_and_exits_1(tmp_path: Path) -> None:
    wrong = {**SCENARIOS[1], "expect": {**SCENARIOS[1]["expect"], "missing_webhook": []}}
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps([SCENARIOS[0], wrong]))

    result = subprocess.run(
        [sys.executable, "-m", "tests.reconciliation", str(file)], capture_output=True, text=True, check=False
    )

    assert result.returncode == 1, result.stderr
    assert result.stdout.splitlines() == [
        "missing-webhook: missing_webhook: expected [], found [3]",
        "2 scenarios, 1 differ",
    ]
