"""Run the whole suite, once for each database, on servers of its own that are gone afterwards.

Several databases have their turns side by side, each in a process of its own.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Self

from tests.harness.servers import (
    NOT_WITHOUT_SERVERS,
    ROOT,
    MariaDB,
    MySQL,
    Redis,
    ServerFailed,
    lacking,
    launch,
    servers_are_required,
)

DATABASE_SERVERS: dict[str, type[MariaDB] | type[MySQL]] = {"mariadb": MariaDB, "mysql": MySQL}
DATABASES = ["sqlite", *DATABASE_SERVERS]
DATABASES_BY_DEFAULT = ["mariadb", "sqlite"]  # the longest first
URLS = ("DATABASE_URL", "REDIS_URL")
SIDE_BY_SIDE = max(2, os.cpu_count() or 1)  # a run waits for much of its time
POLL_SECONDS = 0.1
MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 1 << 30  # a run takes less than half of it


def main(arguments: Sequence[str]) -> int:
    """Run pytest for each database asked for; answer the exit status of the first run that failed.

    What can't be run is said before the first run, so that the output ends with pytest's own closing line.
    """
    databases, pytest_arguments = parse(arguments)
    skipped = {database: reasons for database in databases if (reasons := reasons_to_skip(database))}
    for database, reasons in skipped.items():
        print(f"!! The suite does NOT run on {database}:", *reasons, sep="\n!!   ", flush=True)
    if skipped and servers_are_required():
        print(NOT_WITHOUT_SERVERS, flush=True)
        return 1
    runnable = [database for database in databases if database not in skipped]
    if len(runnable) > 1:
        return run_side_by_side(runnable, pytest_arguments)
    return run_on(runnable[0], pytest_arguments) if runnable else 0


@dataclass
class Run:
    """One database's, as a process of its own."""

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

    def is_over(self) -> bool:
        return self.process.poll() is not None

    def show(self) -> None:
        """What it has said since it was last shown."""
        with self.output.open("rb") as output:
            output.seek(self.shown)
            self.shown += sys.stdout.buffer.write(output.read())
        sys.stdout.flush()

    def interrupt(self) -> None:
        """As Ctrl-C at a terminal of its own does."""
        if not self.is_over():
            os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> None:
        self.process.terminate()  # does nothing to one that has ended
        self.process.wait()


def command_of(database: str, pytest_arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "tests", database, "--", *pytest_arguments]


def run_side_by_side(databases: Sequence[str], pytest_arguments: Sequence[str]) -> int:
    """Show one run after the other, in this order, each as it comes from the moment that it is its turn."""
    waiting, runs, shown = list(databases), list[Run](), 0
    with tempfile.TemporaryDirectory(prefix="prihod-") as folder:
        try:
            while waiting or shown < len(runs):
                try:
                    while waiting and sum(not run.is_over() for run in runs) < SIDE_BY_SIDE:
                        runs.append(Run.start(waiting.pop(0), pytest_arguments, Path(folder)))
                    is_over = runs[shown].is_over()  # asked first: what it says last is shown, too
                    runs[shown].show()
                    shown += is_over
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
    """The databases, and what stands after `--`."""
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
    """What is missing for this database; empty when it can run."""
    if database == "sqlite":
        return []
    names = [DATABASE_SERVERS[database].name, Redis.name]
    reasons = [lack for name in names if (lack := lacking(name))]
    if not importlib.util.find_spec("MySQLdb"):
        install = "mysqlclient is not installed. Install it with: pip install -r requirements/mysql.txt"
        reasons.append(lacking("mysqlclient") or install)
    return reasons


def run_on(database: str, pytest_arguments: Sequence[str]) -> int:
    """Start what this database needs, run pytest on it, stop it again."""
    with quick_folder():
        return run_in_folder(database, [f"-ocache_dir=.pytest_cache/{database}", *pytest_arguments])


@contextmanager
def quick_folder() -> Iterator[None]:
    """Where there is room, all temporary files of a run are kept in memory: its databases sync every commit,
    which cost more than all else, and a process that is killed loses nothing there either.

    TMPDIR=/tmp in the environment has them on the disk.
    """
    if "TMPDIR" in os.environ or not there_is_room():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="prihod-", dir=MEMORY, ignore_cleanup_errors=True) as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        yield


def there_is_room() -> bool:
    """In the folder in memory, and in the memory behind it, which the run's processes need as well."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < MEMORY_BYTES_MIN:
        return False
    available = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    return available is not None and int(available[1]) << 10 >= 3 * MEMORY_BYTES_MIN


def run_in_folder(database: str, pytest_arguments: Sequence[str]) -> int:
    environment = {name: value for name, value in os.environ.items() if name not in URLS}
    if database == "sqlite":
        print(f"== the suite on SQLite {sqlite3.sqlite_version}, without Redis ==", flush=True)
        return run_pytest(pytest_arguments, environment)
    try:
        with DATABASE_SERVERS[database]() as server, Redis() as redis:
            print(f"== the suite on {server.name} {server.version} and Redis {redis.version} ==", flush=True)
            environment.update(zip(URLS, (server.url, redis.url), strict=True))
            return run_pytest(pytest_arguments, environment)
    except ServerFailed as failure:
        print(f"!! {failure}", flush=True)
        return 1


def run_pytest(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    process = launch([sys.executable, "-m", "pytest", *arguments], environment=environment)
    try:
        return wait_through_interrupts(process)
    finally:
        process.kill()  # does nothing to one that has ended
        process.wait()


def wait_through_interrupts(process: subprocess.Popen[bytes]) -> int:
    """Ctrl-C reaches pytest, too, which then reports what it has and ends; so wait for that."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def end_in_order(signal_number: int, _frame: FrameType | None) -> None:
    """Leave by way of every `with` and `finally`, so that servers stop and their folders go."""
    sys.exit(128 + signal_number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end_in_order)
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
