"""The scenarios and seeded bugs that take too long for every test run, as `make faults` runs them."""

import pytest

from faults.all_scenarios import SCENARIOS
from faults.scenario_run import run_scenario
from faults.seeded_bugs import SEEDED_BUGS, SeededBug
from tests.faults.test_faults import IN_EVERY_RUN, SEED, servers

__all__ = ["servers"]
pytestmark = [pytest.mark.long, pytest.mark.timeout(600), pytest.mark.usefixtures("servers")]
# Three databases on one machine take minutes: `make faults` runs them. Here is one cluster.
LONGER = {name for name in SCENARIOS if name.startswith(("galera_", "group_replication_"))} - {
    "galera_writer_killed_once"
}


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in {IN_EVERY_RUN, *LONGER}])
def test_scenario_finds_no_violation(name: str) -> None:
    if reason := SCENARIOS[name].missing():
        pytest.skip(reason)

    result = run_scenario(SCENARIOS[name], SEED)

    assert result.violations == []
    assert result.ok


@pytest.mark.parametrize("bug", SEEDED_BUGS, ids=lambda bug: bug.name)
def test_checker_detects_a_seeded_bug(bug: SeededBug) -> None:
    if reason := SCENARIOS[bug.scenario].missing():
        pytest.skip(reason)
    _, violation = bug.run(SEED)

    assert violation
