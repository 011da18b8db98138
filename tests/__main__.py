"""Run the suite on each of several databases in parallel, on private servers that are removed afterwards.

Tests that a database matters to run on each. All others run once: with SQLite if they use no database, else
with the first server, as in production. docs/testing.md describes the tiers.
"""

import argparse
import importlib.util
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Self

from tests.harness.servers import (
    REQUIRED_SERVERS_MISSING,
    ROOT,
    Redis,
    ServerFailed,
    launch,
    missing_reason,
    servers_are_required,
)
from tests.harness.templates import SERVERS, share, template
from tests.private_servers import PRIVATE_DATABASE

DATABASES = ["sqlite", *SERVERS]
DATABASES_BY_DEFAULT = ["mariadb", "sqlite"]  # the longest first
URLS = ("DATABASE_URL", "REDIS_URL")
CPUS = os.cpu_count() or 1
PARALLEL_RUNS_MAX = max(2, CPUS)  # a run is idle for much of its time
WORKERS = max(2, CPUS // 2)  # of one run
# A file's tests share fixtures such as a stack; tests/tiers.py orders the files.
DISTRIBUTION = ("--dist", "loadfile", "--no-loadscope-reorder")
NOT_SQLITE_RUN_ONLY = "(not sqlite_run_only or every_database)"
POLL_SECONDS = 0.1
MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 1 << 30  # a run uses less than half of it


def main(arguments: Sequence[str]) -> int:
    """Run pytest for each requested database; return the exit status of the first run that failed.

    Report databases that can't run before the first run, so that the output ends with pytest's own summary.
    """
    databases, pytest_arguments = parse(arguments)
    skipped = {database: reasons for database in databases if (reasons := reasons_to_skip(database))}
    for database, reasons in skipped.items():
        print(f"!! The suite does NOT run on {database}:", *reasons, sep="\n!!   ", flush=True)
    if skipped and servers_are_required():
        print(REQUIRED_SERVERS_MISSING, flush=True)
        return 1
    runnable = [database for database in databases if database not in skipped]
    if len(runnable) > 1:
        return run_in_parallel(runnable, pytest_arguments)
    return run_on(runnable[0], pytest_arguments) if runnable else 0


def selections(databases: Sequence[str]) -> dict[str, list[str]]:
    """Return pytest's arguments that select each database's tests.

    Together they select every test but the long ones, which are asked for: `-m long`.
    """
    chosen = {database: {"db", "every_database"} for database in databases}
    if databases:
        as_in_production = next(name for name in [*SERVERS, "sqlite"] if name in chosen)
        chosen[as_in_production] |= {"process", "browser"}
        chosen["sqlite" if "sqlite" in chosen else databases[0]] |= {
            "unit",
            "sqlite_run_only",
            "embedded_too",
        }
    return {database: ["-m", _expression(marks)] for database, marks in chosen.items()}


def _expression(marks: Collection[str]) -> str:
    elsewhere = "" if "sqlite_run_only" in marks else f" and {NOT_SQLITE_RUN_ONLY}"
    return f"({' or '.join(sorted(marks))}) and not long{elsewhere}"


@dataclass
class Run:
    """The run on one database, as a separate process."""

    output: Path
    process: subprocess.Popen[bytes]
    shown: int = 0  # bytes

    @classmethod
    def start(cls, database: str, pytest_arguments: Sequence[str], folder: Path) -> Self:
        output = folder / database
        output.touch()
        environment = {**os.environ, **({"PY_COLORS": "1"} if sys.stdout.isatty() else {})}
        process = launch(command_of(database, pytest_arguments), log=output, environment=environment)
        return cls(output, process)

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def show(self) -> None:
        """Print the output since the last call."""
        with self.output.open("rb") as output:
            output.seek(self.shown)
            self.shown += sys.stdout.buffer.write(output.read())
        sys.stdout.flush()

    def interrupt(self) -> None:
        """Send SIGINT to the process group, as Ctrl-C in its own terminal does."""
        if not self.has_ended():
            os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> None:
        self.process.terminate()  # no effect after its end
        self.process.wait()


def command_of(database: str, pytest_arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "tests", database, "--", *pytest_arguments]


def run_in_parallel(databases: Sequence[str], pytest_arguments: Sequence[str]) -> int:
    """Run all databases in parallel; print their output one after the other, in the given order."""
    waiting, runs, shown = list(databases), list[Run](), 0
    selection = selections(databases)
    with tempfile.TemporaryDirectory(prefix="prihod-") as folder:
        try:
            while waiting or shown < len(runs):
                try:
                    while waiting and sum(not run.has_ended() for run in runs) < PARALLEL_RUNS_MAX:
                        database = waiting.pop(0)
                        selected = [*selection[database], *pytest_arguments]
                        runs.append(Run.start(database, selected, Path(folder)))
                    has_ended = runs[shown].has_ended()  # before show(), which prints the last output
                    runs[shown].show()
                    shown += has_ended
                    time.sleep(POLL_SECONDS)
                except KeyboardInterrupt:
                    waiting.clear()
                    for run in runs:
                        run.interrupt()
        finally:
            for run in runs:
                run.end()
    return next((run.process.returncode for run in runs if run.process.returncode), 0)


def parse(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the databases, and pytest's arguments after `--`."""
    parser = argparse.ArgumentParser(
        prog="python -m tests",
        usage="%(prog)s [-h] [database ...] [-- pytest's arguments ...]",
        description=f"{__doc__} MariaDB and MySQL come with a Redis. A database whose server is not "
        "installed is skipped, loudly; with REQUIRE_SERVERS=1 in the environment that is a failure.",
    )
    databases_help = f"any of {', '.join(DATABASES)}; {' and '.join(DATABASES_BY_DEFAULT)} unless given"
    parser.add_argument("databases", nargs="*", metavar="database", help=databases_help)
    own = list(arguments)
    pytest_arguments: list[str] = []
    if "--" in own:
        own, pytest_arguments = own[: own.index("--")], own[own.index("--") + 1 :]
    databases = list(dict.fromkeys(parser.parse_args(own).databases)) or DATABASES_BY_DEFAULT
    if unknown := set(databases) - set(DATABASES):
        parser.error(f"unknown database: {', '.join(sorted(unknown))} (known: {', '.join(DATABASES)})")
    return databases, pytest_arguments


def reasons_to_skip(database: str) -> list[str]:
    """Return what is missing for this database; empty if it can run."""
    if database == "sqlite":
        return []
    names = [SERVERS[database].name, Redis.name]
    reasons = [reason for name in names if (reason := missing_reason(name))]
    if not importlib.util.find_spec("MySQLdb"):
        install = "mysqlclient is not installed. Install it with: pip install -r requirements/mysql.txt"
        reasons.append(missing_reason("mysqlclient") or install)
    return reasons


def run_on(database: str, pytest_arguments: Sequence[str]) -> int:
    with temporary_files_in_memory():
        workers = ["-n", str(WORKERS), *DISTRIBUTION, f"-ocache_dir=.pytest_cache/{database}"]
        default = [] if database == "sqlite" else ["-m", f"not long and {NOT_SQLITE_RUN_ONLY}"]
        return run_in_folder(database, [*workers, *default, *pytest_arguments])


@contextmanager
def temporary_files_in_memory() -> Iterator[None]:
    """Put all temporary files into memory where there is enough of it.

    The databases flush every commit, which costs more than all the rest, and a killed process loses nothing
    in memory either. Set TMPDIR=/tmp in the environment to use the disk.
    """
    if "TMPDIR" in os.environ or not enough_memory():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="prihod-", dir=MEMORY, ignore_cleanup_errors=True) as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        yield


def enough_memory() -> bool:
    """Return whether the memory file system and the memory behind it, which processes need too, suffice."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < MEMORY_BYTES_MIN:
        return False
    available = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    return available is not None and int(available[1]) << 10 >= 3 * MEMORY_BYTES_MIN


def run_in_folder(database: str, pytest_arguments: Sequence[str]) -> int:
    share()
    environment = {name: value for name, value in os.environ.items() if name not in URLS}
    if database == "sqlite":
        print(f"== the suite on SQLite {sqlite3.sqlite_version}, without Redis ==", flush=True)
        return run_pytest(pytest_arguments, environment)
    try:
        template(database)  # fails here, and once, if the server can't run
        print(f"== the suite on {SERVERS[database].name}, with Redis ==", flush=True)
        return run_pytest(pytest_arguments, {**environment, PRIVATE_DATABASE: database})
    except ServerFailed as failure:
        print(f"!! {failure}", flush=True)
        return 1


def run_pytest(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    process = launch(
        [sys.executable, "-m", "pytest", "-p", "tests.private_servers", *arguments], environment=environment
    )
    try:
        return wait_through_interrupts(process)
    finally:
        process.kill()  # no effect after its end
        process.wait()


def wait_through_interrupts(process: subprocess.Popen[bytes]) -> int:
    """Wait for pytest, which also receives Ctrl-C and ends after its summary."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def exit_cleanly(signal_number: int, _frame: FrameType | None) -> None:
    """Exit through every `with` and `finally`, so that servers stop and temporary folders are removed."""
    sys.exit(128 + signal_number)


if __name__ == "__main__":
    # A script's background commands start with SIGINT ignored, which the tests of Ctrl-C would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, exit_cleanly)
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
