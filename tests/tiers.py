"""Sort every test into one tier by what it uses, and refuse a test that uses more than its tier allows.

unit: no database, no process of Prihod. db: one database. process: starts servers, workers or commands.
browser: Chromium. long: takes minutes. docs/testing.md tells how to choose and run them.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

TIERS = ("unit", "db", "process", "browser", "long")
WITHOUT_PROGRAMS = ("unit", "db")
SERVERS = ("setpriv", "mariadbd", "redis-server")
# The slowest files start first, so that no worker is left alone with them.
ORDER = ("long", "process", "browser", "db", "unit")
FIXTURES_OF = {
    "browser": {"browser"},
    "process": {"servers", "stack", "new_stack", "production"},
    "db": {"db", "transactional_db"},
}


class TierExceeded(BaseException):
    """A test started a slow program. Not an Exception, so that no code under test handles it."""


def tier_of(item: pytest.Item) -> str:
    """Return the tier that a test is marked with, else the lowest that has what its fixtures need.

    Raise ValueError for several marks.
    """
    marked = [tier for tier in TIERS if item.get_closest_marker(tier)]
    if "long" in marked:
        return "long"  # also in a module of another tier
    if len(marked) > 1:
        raise ValueError(f"{item.nodeid} is marked {' and '.join(marked)}; mark one tier")
    if marked:
        return marked[0]
    fixtures = set(getattr(item, "fixturenames", ()))
    if item.get_closest_marker("django_db"):
        fixtures.add("db")
    return next((tier for tier, needed in FIXTURES_OF.items() if fixtures & needed), "unit")


def mark_with_tier(item: pytest.Item) -> None:
    """Mark the test with its tier, so that `-m` selects it."""
    tier = tier_of(item)
    if not item.get_closest_marker(tier):
        item.add_marker(tier)


def slowest_first(items: list[pytest.Item]) -> None:
    """Order the files by tier, and within a tier by their number of tests; keep the order within a file."""
    files: dict[Any, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)

    def key(tests: list[pytest.Item]) -> tuple[int, int]:
        return min(ORDER.index(tier_of(item)) for item in tests), -len(tests)

    items[:] = [item for tests in sorted(files.values(), key=key) for item in tests]


def split_by_share(items: list[pytest.Item], share: str) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Return the tests that belong to `share`, such as "2/7" (the first is 0/7), and the others.

    Only long tests are shared out, evenly; the others belong to each share.
    """
    number, shares = map(int, share.split("/"))
    position = count()
    others = [
        item for item in items if tier_of(item) == "long" and next(position) % shares != number % shares
    ]
    return [item for item in items if item not in others], others


def forbid_programs() -> Iterator[None]:
    """Refuse Python, whose start takes a second, and servers. Short programs such as git are permitted."""
    start = subprocess.Popen.__init__

    def start_if_short(popen: Any, command: Any, *arguments: Any, **options: Any) -> None:
        words = [command] if isinstance(command, str | os.PathLike) else list(command)
        if any(str(word).startswith((f"{sys.prefix}/bin/", *SERVERS)) for word in words):
            raise TierExceeded(f"only a test of the tier process may start this program: {command!r}")
        start(popen, command, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", start_if_short)
        yield
