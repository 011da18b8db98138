"""One end for all processes and for whatever they started, whether they listen or not."""

import os
import time
from collections.abc import Iterator

import pytest

from devtools import supervisor
from devtools.supervisor import Processes
from tests.harness.processes import is_alive
from tests.markers import sqlite_run_only

pytestmark = sqlite_run_only

DEAF = "trap '' TERM; echo deaf; while :; do sleep 0.1; done"


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is written, as it comes; pytest's own capturing loses what comes while it is read."""
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
    """As soon as there are so many."""
    while len(console) < count:
        time.sleep(0.01)
    return b"".join(console).decode().splitlines()


def first_end(processes: Processes) -> str:
    while not (told := processes.ended()):
        time.sleep(0.01)
    return told


def test_says_which_process_ended_and_how(processes: Processes) -> None:
    run(processes, calm="exec sleep 100", hasty="exit 3")
    assert first_end(processes) == "hasty ended with status 3"


def test_process_killed_by_a_signal_is_told_by_its_name(processes: Processes) -> None:
    run(processes, victim="kill -9 $$")
    assert first_end(processes) == "victim ended by signal SIGKILL"


def test_lines_of_all_stand_under_their_names(processes: Processes, console: list[bytes]) -> None:
    run(processes, web="echo one; echo; printf two", worker="echo oops >&2")
    assert sorted(lines(console, 3)) == ["web    | one", "web    | two", "worker | oops"]


def test_ctrl_c_at_the_terminal_is_for_us_alone(processes: Processes, console: list[bytes]) -> None:
    run(processes, worker="echo $$; exec sleep 100")
    pid = int(lines(console, 1)[0].split()[-1])
    assert os.getsid(pid) != os.getsid(0)


def test_the_deaf_are_killed_in_the_end(processes: Processes, console: list[bytes]) -> None:
    run(processes, deaf=DEAF, deafer=DEAF)
    lines(console, 2)
    begun = time.monotonic()
    processes.stop()

    assert 1 <= time.monotonic() - begun < 30
    assert lines(console, 3)[-1] == "killed after 1 seconds: deaf, deafer"


def test_what_a_dead_process_has_started_is_stopped_too(processes: Processes, console: list[bytes]) -> None:
    run(processes, parent="sleep 100 & echo $!")
    orphan = int(lines(console, 1)[0].split()[-1])
    first_end(processes)
    assert is_alive(orphan)
    processes.stop()

    assert not is_alive(orphan)
