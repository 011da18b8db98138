"""Several runs of the suite at a time read like one after the other, and fail like each of them."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import __main__ as suite
from tests.harness.servers import ROOT
from tests.markers import sqlite_run_only

pytestmark = sqlite_run_only


def say(monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Instead of the suite, these shell scripts run."""

    def command_of(database: str, _: Sequence[str]) -> list[str]:
        return ["sh", "-c", scripts[database]]

    monkeypatch.setattr(suite, "command_of", command_of)


def test_each_is_shown_whole_in_the_order_asked_for(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    met = tmp_path / "met"
    say(
        monkeypatch,
        mysql=f"echo mysql begins; until [ -e {met} ]; do sleep 0.05; done; echo mysql ends",
        mariadb=f"echo mariadb; touch {met}",
        sqlite="echo sqlite",
    )

    assert suite.run_side_by_side(["mysql", "mariadb", "sqlite"], []) == 0
    assert capfdbinary.readouterr().out == b"mysql begins\nmysql ends\nmariadb\nsqlite\n"


def test_the_first_that_failed_is_the_status_and_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    say(monkeypatch, mysql="exit 3", mariadb="exit 4", sqlite="echo ran")

    assert suite.run_side_by_side(["mysql", "mariadb", "sqlite"], []) == 3
    assert capfdbinary.readouterr().out == b"ran\n"


def test_a_run_that_ends_in_order_leaves_nothing_in_memory() -> None:
    program = "import os, tests.__main__ as suite\nwith suite.quick_folder(): print(os.environ['TMPDIR'])"
    environment = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
    if not suite.there_is_room():
        pytest.skip("there is no room in memory")
    folder = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, env=environment, text=True)

    assert Path(folder.strip()).parent == suite.MEMORY
    assert not Path(folder.strip()).exists()
