"""Processes and their descendants end together, even if they ignore SIGTERM."""

import os
import time
from collections.abc import Iterator

import pytest

from devtools import supervisor
from devtools.supervisor import Processes
from tests.harness.processes import is_alive
from tests.markers import sqlite_run_only

pytestmark = sqlite_run_only

STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.1; done"


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the written data; pytest's capturing loses data that is written while it reads."""
    written: list[bytes] = []
    monkeypatch.setattr(supervisor, "_write", written.append)
    return written


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch, console: list[bytes]) -> Iterator[Processes]:
    monkeypatch.setattr(supervisor, "STOP_SECONDS_MAX", 1.0)
    processes = Processes()
    yield processes
    processes.stop()


def run(processes: Processes, **commands: str) -> None:
    for name, command in commands.items():
        processes.start(name, command, os.environ)


def lines(console: list[bytes], count: int) -> list[str]:
    """Return the console's lines as soon as there are `count`."""
    while len(console) < count:
        time.sleep(0.01)
    return b"".join(console).decode().splitlines()


def first_end(processes: Processes) -> str:
    while not (ended := processes.ended()):
        time.sleep(0.01)
    return ended


def test_ended_names_the_process_and_its_status(processes: Processes) -> None:
    run(processes, calm="exec sleep 100", hasty="exit 3")
    assert first_end(processes) == "hasty ended with status 3"


def test_ended_names_the_signal(processes: Processes) -> None:
    run(processes, victim="kill -9 $$")
    assert first_end(processes) == "victim ended by signal SIGKILL"


def test_output_lines_are_prefixed_with_the_process_name(processes: Processes, console: list[bytes]) -> None:
    run(processes, web="echo one; echo; printf two", worker="echo oops >&2")
    assert sorted(lines(console, 3)) == ["web    | one", "web    | two", "worker | oops"]


def test_process_runs_in_a_session_of_its_own(processes: Processes, console: list[bytes]) -> None:
    run(processes, worker="echo $$; exec sleep 100")
    pid = int(lines(console, 1)[0].split()[-1])
    assert os.getsid(pid) != os.getsid(0)


def test_processes_ignoring_sigterm_get_sigkill(processes: Processes, console: list[bytes]) -> None:
    run(processes, first=STUBBORN, second=STUBBORN)
    lines(console, 2)
    started = time.monotonic()
    processes.stop()

    assert 1 <= time.monotonic() - started < 30
    assert lines(console, 3)[-1] == "killed after 1 seconds: first, second"


def test_orphan_of_an_ended_process_is_stopped(processes: Processes, console: list[bytes]) -> None:
    run(processes, parent="sleep 100 & echo $!")
    orphan = int(lines(console, 1)[0].split()[-1])
    first_end(processes)
    assert is_alive(orphan)
    processes.stop()

    assert not is_alive(orphan)
