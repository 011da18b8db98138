"""The scenarios and seeded bugs that take too long for every test run, as `make faults` runs them."""

import pytest

from faults.all_scenarios import SCENARIOS
from faults.scenario_run import run_scenario
from faults.seeded_bugs import SEEDED_BUGS, SeededBug
from tests.faults.test_faults import ON_SERVERS, SEED, SEEDED_BUGS_HERE, servers

__all__ = ["servers"]
pytestmark = [pytest.mark.long, pytest.mark.timeout(600), pytest.mark.usefixtures("servers")]
EMBEDDED = "embedded_processes_killed"  # part of the run on SQLite
# Three databases on one machine take minutes: `make faults` runs them. Here is one cluster.
LONGER = {name for name in SCENARIOS if name.startswith(("galera_", "group_replication_"))} - {
    "galera_writer_killed_once"
}


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in {*ON_SERVERS, *LONGER, EMBEDDED}])
def test_scenario_finds_no_violation(name: str) -> None:
    if reason := SCENARIOS[name].missing():
        pytest.skip(reason)

    assert run_scenario(SCENARIOS[name], SEED).violations == []


@pytest.mark.parametrize("bug", SEEDED_BUGS, ids=lambda bug: bug.name)
def test_checker_detects_a_seeded_bug(bug: SeededBug) -> None:
    if bug.name in SEEDED_BUGS_HERE:
        pytest.skip("detected in every test run")
    if reason := SCENARIOS[bug.scenario].missing():
        pytest.skip(reason)
    _, violation = bug.run(SEED)

    assert violation
