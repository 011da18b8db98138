"""Parallel runs of the suite print and fail like sequential ones."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import __main__ as suite
from tests.harness.servers import ROOT
from tests.markers import sqlite_run_only

pytestmark = [sqlite_run_only, pytest.mark.process]


def replace_suite(monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Replace the suite by these shell scripts."""

    def command_of(database: str, _: Sequence[str]) -> list[str]:
        return ["sh", "-c", scripts[database]]

    monkeypatch.setattr(suite, "command_of", command_of)


def test_output_is_printed_per_run_in_the_given_order(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    reached = tmp_path / "reached"
    replace_suite(
        monkeypatch,
        mysql=f"echo mysql starts; until [ -e {reached} ]; do sleep 0.05; done; echo mysql ends",
        mariadb=f"echo mariadb; touch {reached}",
        sqlite="echo sqlite",
    )

    assert suite.run_in_parallel(["mysql", "mariadb", "sqlite"], []) == 0
    assert capfdbinary.readouterr().out == b"mysql starts\nmysql ends\nmariadb\nsqlite\n"


def test_first_failure_is_the_exit_status_and_stops_no_other_run(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    replace_suite(monkeypatch, mysql="exit 3", mariadb="exit 4", sqlite="echo ran")

    assert suite.run_in_parallel(["mysql", "mariadb", "sqlite"], []) == 3
    assert capfdbinary.readouterr().out == b"ran\n"


def test_finished_run_leaves_nothing_in_memory() -> None:
    program = (
        "import os, tests.__main__ as suite\n"
        "with suite.temporary_files_in_memory(): print(os.environ['TMPDIR'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
    if not suite.enough_memory():
        pytest.skip("not enough memory")
    folder = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, env=environment, text=True)

    assert Path(folder.strip()).parent == suite.MEMORY
    assert not Path(folder.strip()).exists()
