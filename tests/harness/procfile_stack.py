"""The house under test: the Procfile's own commands, on a database and a broker that nobody else uses."""

import http.client
import os
import random
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import redis

from tests.harness.processes import proc_stat
from tests.harness.servers import ROOT, MariaDB, Redis, ServerFailed, free_port, lacking, launch
from tests.harness.tcp_proxy import TcpProxy

try:
    import MySQLdb
except ImportError:  # then only the embedded house can be tested, and `missing` says so
    MySQLdb = None
DATABASE_ERRORS: tuple[type[Exception], ...] = (sqlite3.Error, *([MySQLdb.Error] if MySQLdb else []))

START_SECONDS_MAX = 60.0
POLL_SECONDS = 0.02
# Short times, so that what takes minutes in production takes seconds here; the order of them is the same.
SHORT_TIMES = {
    "RETRY_BACKOFF_SECONDS": "0.1",
    "SWEEP_INTERVAL_SECONDS": "1",
    "STALLED_AFTER_SECONDS": "4",
}
# Empty is as good as unset, and hides what a developer's .env may say.
CLEAN_ENVIRONMENT = dict.fromkeys(
    [
        *("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DEBUG", "HOST", "LOG_LEVEL"),
        *("WEBHOOK_AUTH", "WEBHOOK_SECRETS", "WEBHOOK_X_SIGNATURE_SECRETS", "WEBHOOK_PUBLIC_KEY_FILE"),
        *("WEBHOOK_BASIC_AUTH", "WEBHOOK_BEARER_TOKENS", "WEBHOOK_NETWORKS", "WEBHOOK_TOLERANCE_SECONDS"),
        *("TRUSTED_PROXIES", "READ_AUTH"),
    ],
    "",
)


class StackFailed(Exception):
    """The house did not come up, or not to an end: nothing can be said about a scenario then."""


def missing_servers() -> list[str]:
    """What the scenarios on MariaDB and Redis lack on this machine."""
    reasons = [lack for name in ("MariaDB", "Redis") if (lack := lacking(name))]
    return reasons if MySQLdb else [*reasons, "mysqlclient is missing: pip install -r requirements/mysql.txt"]


def wait_until(happened: Callable[[], object], what: str, seconds: float = START_SECONDS_MAX) -> float:
    """Wait until `happened()` is true; the seconds that took. Raises StackFailed when it takes too long."""
    begun = time.monotonic()
    while not happened():
        if time.monotonic() - begun > seconds:
            raise StackFailed(f"after {seconds:.0f} s still not: {what}")
        time.sleep(POLL_SECONDS)
    return time.monotonic() - begun


class ManagedProcess:
    """One line of the Procfile as a process in a group of its own, with all that it forks."""

    def __init__(self, name: str, command: str, environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.command = command
        self.environment = dict(environment)
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["sh", "-c", f"cd {shlex.quote(str(ROOT))} && {self.command}"]
        self._process = launch(command, log=self.log, environment=self.environment)

    @property
    def pid(self) -> int:
        if self._process is None:
            raise StackFailed(f"{self.name} was not started")
        return self._process.pid

    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def children(self) -> list[int]:
        """What it has forked: web's request processes, a worker's pool."""
        try:
            found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except FileNotFoundError:
            return []
        return [int(pid) for pid in found]

    def random_child(self, chance: random.Random) -> int:
        wait_until(self.children, f"a child of {self.name}")
        return chance.choice(self.children())

    def kill(self) -> None:
        """kill -9 of the parent; its children are left to find out."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def kill_group(self) -> None:
        """kill -9 of the parent and all its children."""
        os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def send_group(self, number: signal.Signals) -> None:
        os.killpg(self.pid, number)

    def wait(self, seconds: float = START_SECONDS_MAX) -> int:
        """Its exit status. Raises StackFailed if it goes on."""
        if self._process is None:
            raise StackFailed(f"{self.name} was not started")
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise StackFailed(f"{self.name} did not end within {seconds:.0f} s") from None

    def log_count(self, words: str) -> int:
        return self.log.read_text(errors="replace").count(words) if self.log.exists() else 0

    def ready_count(self) -> int:
        """How often a worker has said that it is ready."""
        return self.log_count(" ready.")

    def is_ready_again(self, times: int) -> bool:
        return self.ready_count() > times


class ProcfileStack:
    """Fresh at the start of each `with`; nothing of it is left afterwards, unless `keep` names a folder for
    the logs.

    embedded: SQLite and the file broker instead of MariaDB and Redis. redis: None for a broker that is never
    there. proxied: a Proxy stands before the database, the broker and the web process. started: the programs
    that run from the beginning; all unless given.
    """

    def __init__(
        self,
        *,
        embedded: bool = False,
        workers: int = 2,
        broker: bool = True,
        proxied: bool = False,
        database_settings: Sequence[str] = (),
        redis_settings: Sequence[str] = (),
        disk_bytes: int = 0,
        environment: Mapping[str, str] | None = None,
        environments: Mapping[str, Mapping[str, str]] | None = None,
        started: Sequence[str] | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="prihod-faults-"))
        self.mark = f"house-{uuid4()}"
        self.embedded = embedded
        self.port = free_port()
        self.url_port = self.port
        self.proxies: dict[str, TcpProxy] = {}
        self.database = None if embedded else MariaDB(database_settings)
        self.redis = Redis(redis_settings) if broker and not embedded else None
        self._disk_bytes = disk_bytes
        self._proxied = proxied
        self._broker = broker
        self._environment = {**SHORT_TIMES, **(environment or {})}
        self._environments = environments or {}
        self._workers = workers
        self._started = started
        self.programs: dict[str, ManagedProcess] = {}

    def __enter__(self) -> Self:
        try:
            self._start_servers()
            self._lay_out()
            self.start(*(self.programs if self._started is None else self._started))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        for program in self.programs.values():
            if program.runs():
                program.wait()
        for proxy in self.proxies.values():
            proxy.close()
        if self.database and self._disk_bytes:
            _run("umount", "--lazy", str(self.database.folder / "data"))
        for server in (self.redis, self.database):
            if server:
                server.__exit__(None, None, None)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_servers(self) -> None:
        data = migrated_data(embedded=self.embedded)
        if self.database is None:
            shutil.copy(data / "prihod.sqlite3", self.folder)
            return
        place = self.database.folder / "data"
        if self._disk_bytes:
            place.mkdir()
            _run("mount", "-t", "tmpfs", "-o", f"size={self._disk_bytes}", "tmpfs", str(place))
        shutil.copytree(data, place, dirs_exist_ok=True)
        (self.database.folder / "init.sql").touch()
        self.database.start()
        if self.redis:
            self.redis.start()

    def _lay_out(self) -> None:
        """The programs, each with its environment; none is started."""
        common = {
            **os.environ,
            **CLEAN_ENVIRONMENT,
            **self._addresses(),
            **self._environment,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "DATA_DIR": str(self.folder),
            "PORT": str(self.port),
            "FAULTS_FOLDER": str(self.folder),
            "FAULTS_STACK": self.mark,
        }
        commands = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
        for number in range(1, self._workers + 1):
            # The Procfile's worker is named after its PORT, and needs it for nothing else.
            own = {**common, "PORT": str(self.port + number)}
            self._add(f"worker{number}", commands["worker"], own)
        self._add("web", commands["web"], common)
        self._add("beat", commands["beat"], common)
        self.environment = common

    def _add(self, name: str, command: str, environment: Mapping[str, str]) -> None:
        special = self._environments.get(name, {})
        own = {**environment, **{k: v.replace("{folder}", str(self.folder)) for k, v in special.items()}}
        self.programs[name] = ManagedProcess(name, command, own, self.folder / f"{name}.log")

    def _addresses(self) -> dict[str, str]:
        """Where the programs find database and broker, and the client the web process."""
        if self.database is None:
            return {}
        urls = {"DATABASE_URL": self.database.url, "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
        if self.redis:
            urls["REDIS_URL"] = self.redis.url
        if self._proxied and self.redis:
            database = self.proxies["database"] = TcpProxy(free_port(), str(self.database.socket_path))
            broker = self.proxies["broker"] = TcpProxy(free_port(), ("127.0.0.1", self.redis.port))
            web = self.proxies["web"] = TcpProxy(free_port(), ("127.0.0.1", self.port))
            self.url_port = web.port
            # Shorter than production's, in seconds; the order of them is the same.
            timeouts = "connect_timeout=2&read_timeout=7&write_timeout=7"
            urls["DATABASE_URL"] = f"mysql://root@127.0.0.1:{database.port}/prihod?{timeouts}"
            urls["REDIS_URL"] = f"redis://127.0.0.1:{broker.port}/0"
        production = {"DEBUG": "0", "SECRET_KEY": "only-for-the-fault-suite-" * 3, "WEBHOOK_AUTH": "none"}
        production["READ_AUTH"] = "none"
        return {**urls, **production}

    # Programs

    def __getitem__(self, name: str) -> ManagedProcess:
        return self.programs[name]

    @property
    def workers(self) -> list[ManagedProcess]:
        return [program for name, program in self.programs.items() if name.startswith("worker")]

    def start(self, *names: str, wait: bool = True) -> None:
        """Start those of the programs, and wait until they do their work (if there is a broker)."""
        before = {name: self[name].ready_count() for name in names}
        for name in names:
            self[name].start()
        for name in names if wait else ():
            if name == "web":
                wait_until(self.answers, "web answers")
            elif name.startswith("worker") and self._broker:
                wait_until(partial(self[name].is_ready_again, before[name]), f"{name} is ready")

    def heal(self) -> None:
        """Whatever is stopped goes on, whatever was killed is started."""
        for proxy in self.proxies.values():
            proxy.heal()
        self.wake()
        for server in (self.database, self.redis):
            if server and not is_running(server):
                server.start()
            elif server:
                os.kill(server.pid, signal.SIGCONT)
        self.start(*(name for name, program in self.programs.items() if not program.runs()), wait=False)
        wait_until(self.answers, "web answers after healing")

    def keep_logs(self, folder: Path) -> None:
        """Copy what the programs and servers said, for whoever asks why."""
        folder.mkdir(parents=True, exist_ok=True)
        for program in self.programs.values():
            shutil.copy(program.log, folder)
        for server in (self.database, self.redis):
            if server:
                shutil.copy(server.log, folder / f"{server.name.lower()}.log")

    def wake(self) -> None:
        """SIGCONT to whatever is stopped."""
        for pid in self.pids():
            if is_stopped(pid):
                os.kill(pid, signal.SIGCONT)

    def answers(self) -> bool:
        """Whether web serves, with its database."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        with closing(connection):
            try:
                connection.request("GET", "/readyz")
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False

    def pids(self) -> list[int]:
        """Every process that descends from this house's programs, also orphans."""
        mark = self.mark.encode()
        return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if mark in _environ(folder)]

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run manage.py on the same data, with the production settings whatever is injected elsewhere."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env={**self.environment, "DJANGO_SETTINGS_MODULE": "config.settings"},
            check=False,
            capture_output=True,
            text=True,
            timeout=START_SECONDS_MAX,
        )

    @property
    def mariadb(self) -> MariaDB:
        if self.database is None:
            raise StackFailed("this house has no MariaDB")
        return self.database

    @property
    def broker(self) -> Redis:
        if self.redis is None:
            raise StackFailed("this house has no Redis")
        return self.redis

    def redis_command(self, command: str) -> Any:
        with redis.Redis.from_url(self.broker.url) as client:
            return client.execute_command(*command.split())

    # The database

    def session(self) -> Any:
        """A foreign session: not by way of Django, not through a proxy. To be closed by the caller."""
        if self.database is None:
            return sqlite3.connect(self.folder / "prihod.sqlite3", timeout=20)
        place = {"unix_socket": str(self.database.socket_path), "user": "root", "database": "prihod"}
        return MySQLdb.connect(**place, charset="utf8mb4", connect_timeout=5, read_timeout=60)

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(self.session()) as session:
            rows = execute(session, statement, *values)
            session.commit()
            return rows

    def close_sessions(self, watchman: Any, which: str = "id FROM information_schema.processlist") -> None:
        """Have the database throw out these sessions, named by their ids, but not the watchman's own."""
        for (key,) in execute(watchman, f"SELECT {which}"):
            if key != watchman.thread_id():
                with suppress(*DATABASE_ERRORS):  # gone by itself, or one of the server's own
                    execute(watchman, f"KILL {key}")

    def received(self) -> int:
        """How many webhooks are neither applied nor failed."""
        return int(self.sql("SELECT COUNT(*) FROM ingest_webhook WHERE status = 'received'")[0][0])


def execute(session: Any, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(session.cursor()) as cursor:
        cursor.execute(
            statement.replace("%s", "?") if isinstance(session, sqlite3.Connection) else statement, values
        )
        return list(cursor.fetchall())


@cache
def _kept_until_exit() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="prihod-faults-")


@cache
def migrated_data(*, embedded: bool) -> Path:
    """A folder with the files of an empty, migrated database; each house takes a copy."""
    kept = Path(_kept_until_exit().name)
    if embedded:
        _migrate({"DATA_DIR": str(kept)})
        return kept
    with MariaDB() as server:
        _migrate({"DATABASE_URL": server.url})
        server.stop()
        return Path(shutil.copytree(server.folder / "data", kept / "mariadb"))


def _migrate(environment: Mapping[str, str]) -> None:
    command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    # Not quite production's settings, because they refuse to start without secrets.
    subprocess.run(command, cwd=ROOT, env={**os.environ, **CLEAN_ENVIRONMENT, **environment}, check=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def is_running(server: MariaDB | Redis) -> bool:
    try:
        return Path(f"/proc/{server.pid}").exists()
    except ServerFailed:  # it has no pid
        return False


def is_stopped(pid: int) -> bool:
    return proc_stat(pid)[:1] == ["T"]


def _environ(folder: Path) -> bytes:
    try:
        return (folder / "environ").read_bytes()
    except OSError:  # ended meanwhile, or somebody else's
        return b""
