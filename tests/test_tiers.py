"""Each test has one tier, does not exceed it, and runs on the databases that matter to it."""

import subprocess
import sys
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pytest

from tests import __main__ as suite
from tests import tiers

MARKS = {*tiers.TIERS, "every_database", "embedded_too", "sqlite_run_only"}


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


@dataclass(frozen=True)
class MarkedTest:
    nodeid: str
    mark: str

    def get_closest_marker(self, mark: str) -> bool:
        return mark == self.mark


def test_shares_divide_the_long_tests() -> None:
    tests: Any = [MarkedTest(f"test_{n}", "long" if n % 3 else "unit") for n in range(30)]
    shares = [tiers.split_by_share(tests, f"{number}/7")[0] for number in range(7)]

    in_shares = [test.nodeid for share in shares for test in share if test.mark == "long"]
    assert sorted(in_shares) == sorted(test.nodeid for test in tests if test.mark == "long")
    assert {sum(test.mark == "unit" for test in share) for share in shares} == {10}
    assert tiers.split_by_share(tests, "9/7")[0] == shares[2]


@pytest.mark.parametrize(
    "databases", [list(each) for n in (1, 2, 3) for each in combinations(suite.DATABASES, n)], ids=" ".join
)
def test_every_tier_runs_with_any_databases(databases: list[str]) -> None:
    selected = {database: arguments[1] for database, arguments in suite.selections(databases).items()}

    assert all("db or " in expression for expression in selected.values())
    for mark in ("unit", "process", "browser", "embedded_too", "or sqlite_run_only"):
        assert sum(mark in expression for expression in selected.values()) == 1, mark


@pytest.mark.parametrize(
    ("marks", "databases"),
    [
        ({"db"}, {"sqlite", "mariadb", "mysql"}),
        ({"db", "sqlite_run_only"}, {"sqlite"}),
        ({"db", "sqlite_run_only", "every_database"}, {"sqlite", "mariadb", "mysql"}),
        ({"process"}, {"mariadb"}),
        ({"process", "embedded_too"}, {"sqlite", "mariadb"}),
        ({"process", "every_database"}, {"sqlite", "mariadb", "mysql"}),
        ({"process", "sqlite_run_only"}, {"sqlite"}),
        ({"process", "long", "every_database"}, set()),
    ],
    ids=lambda names: "+".join(sorted(names)),  # the same in all of pytest's processes
)
def test_marks_choose_the_databases(marks: set[str], databases: set[str]) -> None:
    selected = suite.selections(["sqlite", "mariadb", "mysql"])
    assert databases == {
        database
        for database, (_, expression) in selected.items()
        if eval(expression, {mark: mark in marks for mark in MARKS})
    }
