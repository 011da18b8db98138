"""Run the whole suite, once for each database, on servers of its own that are gone afterwards."""

import argparse
import importlib.util
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType

from tests.servers import (
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
DATABASES_BY_DEFAULT = ["sqlite", "mariadb"]
URLS = ("DATABASE_URL", "REDIS_URL")
PYTEST_INTERRUPTED = 2


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
    failure = 0
    for database in databases:
        if database not in skipped:
            status = run_on(database, pytest_arguments)
            if status == PYTEST_INTERRUPTED:
                return status
            failure = failure or status
    return failure


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
    databases: list[str] = parser.parse_args(own).databases or DATABASES_BY_DEFAULT
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
