"""Each test has one tier, does not exceed it, and runs on the databases that matter to it."""

import subprocess
import sys
from itertools import chain, combinations

import pytest

from tests import __main__ as suite
from tests import tiers


def test_every_test_has_exactly_one_tier(request: pytest.FixtureRequest) -> None:
    several = {
        item.nodeid: marked
        for item in request.session.items
        if len(marked := [tier for tier in tiers.TIERS if item.get_closest_marker(tier)]) != 1
        and marked[-1:] != ["long"]
    }

    assert several == {}


def test_test_marked_with_two_tiers_is_an_error(request: pytest.FixtureRequest) -> None:
    item = request.node
    item.add_marker("process")

    try:
        with pytest.raises(ValueError, match="is marked unit and process; mark one tier"):
            tiers.tier_of(item)
    finally:
        item.own_markers.pop()


@pytest.mark.parametrize("command", [[sys.executable, "-c", ""], ["mariadbd", "--version"]])
def test_unit_test_can_start_no_slow_program(command: list[str]) -> None:
    with pytest.raises(tiers.TierExceeded, match="of the tier process"):
        subprocess.run(command, check=False)


def test_unit_test_can_start_a_short_program() -> None:
    assert subprocess.run(["true"], check=False).returncode == 0


def test_shares_divide_the_long_tests(request: pytest.FixtureRequest) -> None:
    items = list(request.session.items)
    shares = [tiers.split_by_share(items, f"{number}/3")[0] for number in range(3)]

    def long_ones(chosen: list[pytest.Item]) -> list[str]:
        return [item.nodeid for item in chosen if tiers.tier_of(item) == "long"]

    assert sorted(chain.from_iterable(map(long_ones, shares))) == sorted(long_ones(items))
    assert all(len(share) - len(long_ones(share)) == len(items) - len(long_ones(items)) for share in shares)


@pytest.mark.parametrize(
    "databases", [list(each) for n in (1, 2, 3) for each in combinations(suite.DATABASES, n)], ids=" ".join
)
def test_every_tier_runs_with_any_databases(databases: list[str]) -> None:
    selected = {database: arguments[1] for database, arguments in suite.selections(databases).items()}

    assert all("db or every_database" in expression for expression in selected.values())
    for mark in ("unit", "process", "browser", "or sqlite_run_only"):
        assert sum(mark in expression for expression in selected.values()) == 1, mark
