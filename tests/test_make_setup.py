"""`make` repeats an interrupted setup, tested with a stub for Python and pip."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.harness.servers import ROOT
from tests.harness.wait import wait_until
from tests.markers import sqlite_run_only

pytestmark = [sqlite_run_only, pytest.mark.process]
# pip considers a package installed if its dist-info exists, and exits with 1 after Ctrl-C. The stub sleeps
# briefly and repeatedly: a signal between fork and exec of a `sleep` is lost.
PYTHON = """#!/bin/sh
stop() {
    if [ "$STOP_AT" = "$1" ]; then trap 'exit 1' INT; touch reached; while :; do sleep 0.1; done; fi
}
case "$*" in
*"-m venv"*)
    mkdir -p .venv/bin && stop venv && cp "$0" .venv/bin/python && touch .venv/bin/pip ;;
*"install -r"*)
    if [ "$FAIL_AT" = "$(basename "$7" .txt)" ]; then exit 1; fi
    for name in $(basename "$7" .txt); do
        if [ -e ".venv/lib/$name.dist-info" ]; then exit 0; fi
        mkdir -p ".venv/lib/$name.dist-info" && stop "$name" && touch ".venv/bin/$name"
    done ;;
*devtools.run*)
    for name in base ${NEEDED}; do
        if [ ! -e ".venv/bin/$name" ]; then echo "$name: not found"; exit 127; fi
    done
    echo started ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements").mkdir()
    for name in ("base", "mysql", "dev"):
        (tmp_path / f"requirements/{name}.txt").touch()
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def make(clone: Path, target: str, **environment: str) -> "subprocess.Popen[str]":
    """Run make as from a terminal, without the MAKE variables of a `make` that runs the suite."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.Popen(
        ["make", f"PYTHON={clone}/python", target],
        cwd=clone,
        env={**ours, **environment},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_make(clone: Path, target: str, **environment: str) -> tuple[int, str]:
    process = make(clone, target, **environment)
    output = process.communicate(timeout=60)[0]
    return process.returncode, output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("stage", ["venv", "base", "mysql"])
def test_interrupted_setup_is_repeated(clone: Path, stage: str, number: signal.Signals) -> None:
    mysql = {"DATABASE_URL": "mysql://u@h/d", "NEEDED": "mysql"} if stage == "mysql" else {}
    process = make(clone, "run", STOP_AT=stage, **mysql)
    wait_until((clone / "reached").exists, f"the setup reached {stage}")
    os.killpg(process.pid, number)
    process.communicate(timeout=30)
    assert process.returncode != 0

    status, output = run_make(clone, "run", **mysql)

    assert (status, output.splitlines()[-1]) == (0, "started"), output
    assert "The set-up was interrupted; it is done anew" in output
    assert run_make(clone, "run", **mysql) == (0, "started\n")  # not repeated again


def test_interrupted_development_setup_leaves_no_partial_package(clone: Path) -> None:
    process = make(clone, ".venv/.dev", STOP_AT="dev")
    wait_until((clone / "reached").exists, "the setup reached dev")
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)

    assert run_make(clone, ".venv/.dev")[0] == 0
    assert (clone / ".venv/bin/dev").exists()
    assert run_make(clone, "run") == (0, "started\n")


def test_partial_setup_of_an_older_makefile_is_repeated(clone: Path) -> None:
    assert run_make(clone, "run")[0] == 0
    (clone / ".venv/.base").unlink()
    (clone / ".venv/bin/base").unlink()  # its dist-info remains

    assert run_make(clone, "run")[1].splitlines()[-1] == "started"


def test_failed_installation_keeps_the_previous_setup(clone: Path) -> None:
    assert run_make(clone, "run")[0] == 0

    assert run_make(clone, ".venv/.dev", FAIL_AT="dev")[0] != 0

    assert run_make(clone, "run") == (0, "started\n")
