import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.servers import ROOT
from tests.markers import sqlite_run_only

pytestmark = [sqlite_run_only, pytest.mark.process]


def test_pytest_in_a_test_folder_imports_our_packages(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("pytest")  # unlike `python -m pytest` it adds no path
    run = subprocess.run(
        [script, "-q", "-p", "no:cacheprovider", ROOT / "tests/core/test_listen_address.py"],
        cwd=ROOT / "tests/monitoring",
        env={**os.environ, "DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def manage_test(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", "test", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def test_manage_py_test_runs_the_suite() -> None:
    run = manage_test("tests/ledger/test_money.py", "-k", "right_check_digits", "--failfast")

    assert run.returncode == 0, run.stdout + run.stderr
    assert "3 passed" in run.stdout


def test_manage_py_test_reports_failure() -> None:
    assert manage_test("tests/ledger/test_money.py", "-k", "no_such_test").returncode != 0
