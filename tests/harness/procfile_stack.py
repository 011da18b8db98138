"""A stack of the Procfile's own commands, each in its own process group, with private servers and proxies."""

import os
import random
import shlex
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from tests.harness.galera import GaleraCluster
from tests.harness.group_replication import ReplicationGroup
from tests.harness.haproxy import HAProxy
from tests.harness.processes import is_stopped
from tests.harness.rabbitmq import RabbitCluster
from tests.harness.sentinel import RedisWithSentinels
from tests.harness.servers import ROOT, MariaDB, Redis, ServerFailed, free_port, launch, missing_reason
from tests.harness.stack import Stack
from tests.harness.tcp_proxy import TcpProxy
from tests.harness.templates import SQLITE_FILE, template
from tests.harness.wait import WaitTimeout, wait_until

try:
    import MySQLdb
except ImportError:  # only the embedded stack works then, which missing_servers() reports
    MySQLdb = None
Cluster = GaleraCluster | ReplicationGroup
DATABASE_ERRORS: tuple[type[Exception], ...] = (sqlite3.Error, *([MySQLdb.Error] if MySQLdb else []))

SECRET_KEY = "only-for-the-fault-suite-" * 3
EXIT_SECONDS_MAX = 150.0
START_SECONDS_MAX = 180.0  # of a process, on a machine that does much else
# Production's delays of minutes become seconds; their order stays the same.
SHORT_TIMES = {
    "RETRY_BACKOFF_SECONDS": "0.1",
    "SWEEP_INTERVAL_SECONDS": "1",
    "STALLED_AFTER_SECONDS": "4",
}


def missing_servers() -> list[str]:
    """Return what a stack on MariaDB and Redis lacks on this machine."""
    reasons = [reason for name in ("MariaDB", "Redis") if (reason := missing_reason(name))]
    return reasons if MySQLdb else [*reasons, "mysqlclient is missing: pip install -r requirements/mysql.txt"]


class ManagedProcess:
    """One command of the Procfile in its own process group, with all its children."""

    def __init__(self, name: str, command: str, environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.command = command
        self.environment = dict(environment)
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = launch(["sh", "-c", self.command], log=self.log, environment=self.environment)

    @property
    def pid(self) -> int:
        return self._started().pid

    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def children(self) -> list[int]:
        """Return the child processes: web's request processes, a worker's pool."""
        try:
            found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except FileNotFoundError:
            return []
        return [int(pid) for pid in found]

    def random_child(self, rng: random.Random) -> int:
        wait_until(self.children, f"{self.name} has a child process")
        return rng.choice(self.children())

    def kill(self) -> None:
        """kill -9 of the parent only."""
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

    def wait(self, seconds: float = EXIT_SECONDS_MAX) -> int:
        """Return the exit status. Raise WaitTimeout if the process continues."""
        try:
            return self._started().wait(seconds)
        except subprocess.TimeoutExpired:
            raise WaitTimeout(f"{self.name} did not end within {seconds:.0f} s") from None

    def log_count(self, text: str) -> int:
        return self.log.read_text(errors="replace").count(text) if self.log.exists() else 0

    def ready_count(self) -> int:
        """Return how often a worker has reported that it is ready."""
        return self.log_count(" ready.")

    def is_ready_again(self, times: int) -> bool:
        return self.ready_count() > times

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process


class ProcfileStack(Stack):
    """Fresh at the start of each `with`; nothing is left afterwards.

    embedded: SQLite and the file broker instead of MariaDB and Redis. galera, group_replication: three nodes
    instead of one MariaDB, all in DATABASE_URL, or with haproxy a proxy in front of Galera; isolated: each
    node of Galera has a network of its own. sentinels: Redis with two replicas. rabbitmq: three nodes instead
    of Redis. broker: False for a REDIS_URL without a server. proxied: a TcpProxy in front of the database,
    the broker and web. webs: further ones are web2 and so on. environment: settings of all processes;
    environments: of single ones, with {folder} for the stack's folder, {node0} for the URL of a node,
    {socket0} for its socket's. commands: by process, instead of the Procfile's. root: a clone of this
    project, such as an older revision. started: the processes that run from the beginning; all by default.
    """

    def __init__(
        self,
        *,
        embedded: bool = False,
        galera: bool = False,
        group_replication: bool = False,
        haproxy: bool = False,
        isolated: bool = False,
        webs: int = 1,
        sentinels: bool = False,
        rabbitmq: bool = False,
        workers: int = 2,
        broker: bool = True,
        proxied: bool = False,
        database_settings: Sequence[str] = (),
        redis_settings: Sequence[str] = (),
        disk_bytes: int = 0,
        environment: Mapping[str, str] | None = None,
        environments: Mapping[str, Mapping[str, str]] | None = None,
        commands: Mapping[str, str] | None = None,
        root: Path = ROOT,
        started: Sequence[str] | None = None,
    ) -> None:
        folder = Path(tempfile.mkdtemp(prefix="prihod-stack-"))
        super().__init__(folder, data_dir=folder, root=root)
        self.embedded = embedded
        self.url_port = self.port
        self.proxies: dict[str, TcpProxy] = {}
        self.database: MariaDB | Cluster | None = None
        self.haproxy: HAProxy | None = None
        if galera:
            self.database = GaleraCluster(data=template("mariadb", root=root), isolated=isolated)
            self.haproxy = HAProxy(self.database.nodes) if haproxy else None
        elif group_replication:
            self.database = ReplicationGroup(data=template("mysql", root=root))
        elif not embedded:
            self.database = MariaDB(database_settings, data=template("mariadb", root=root))
        self.redis: Redis | RedisWithSentinels | RabbitCluster | None = None
        if rabbitmq:
            self.redis = RabbitCluster()
        elif broker and not embedded:
            self.redis = RedisWithSentinels(redis_settings) if sentinels else Redis(redis_settings)
        self._disk_bytes = disk_bytes
        self._proxied = proxied
        self._broker = broker
        self._settings = {**SHORT_TIMES, **(environment or {})}
        self._environments = environments or {}
        self._commands = commands or {}
        self._workers = workers
        further = {f"web{number}": free_port() for number in range(2, webs + 1)}
        self.web_ports = {"web": self.port, **further}
        self._started = started
        self.programs: dict[str, ManagedProcess] = {}

    def __enter__(self) -> Self:
        try:
            self._start_servers()
            self._create_programs()
            self.start(*(self.programs if self._started is None else self._started))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):  # it has ended
                os.kill(pid, signal.SIGKILL)
        for program in self.programs.values():
            if program.runs():
                program.wait()
        for proxy in self.proxies.values():
            proxy.close()
        if self.database and self._disk_bytes:
            _run("umount", "--lazy", str(self.database.folder / "data"))
        for server in (self.redis, self.haproxy, self.database):
            if server:
                server.__exit__(None, None, None)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_servers(self) -> None:
        if self.database is None:
            shutil.copy(template("sqlite", root=self.root) / SQLITE_FILE, self.folder)
            return
        if self._disk_bytes:
            place = self.database.folder / "data"
            place.mkdir()
            _run("mount", "-t", "tmpfs", "-o", f"size={self._disk_bytes}", "tmpfs", str(place))
        self.database.start()
        if self.haproxy:
            self.haproxy.start()
        if self.redis:
            self.redis.start()

    def _create_programs(self) -> None:
        """Create the processes with their environments, without starting them."""
        own = {"FAULTS_FOLDER": str(self.folder), **self._servers_settings(), **self._settings}
        self.environment = self.environment_with(own)
        commands = dict(line.split(": ", 1) for line in (self.root / "Procfile").read_text().splitlines())
        commands |= self._commands
        for number in range(1, self._workers + 1):
            # The Procfile's worker uses PORT only for its host name.
            self._add(f"worker{number}", commands["worker"], {"PORT": str(self.port + number)})
        for name, port in self.web_ports.items():
            self._add(name, commands["web"], {"PORT": str(port)})
        self._add("beat", commands["beat"], {})

    def _add(self, name: str, command: str, settings: Mapping[str, str]) -> None:
        special = self._environments.get(name, {})
        nodes = self.database.nodes if isinstance(self.database, Cluster) else []
        texts = {"{folder}": str(self.folder)}
        for node in nodes:
            texts |= {f"{{node{node.number}}}": node.tcp_url, f"{{socket{node.number}}}": node.url}
        for text, value in texts.items():
            special = {key: given.replace(text, value) for key, given in special.items()}
        environment = {**self.environment, **settings, **special}
        command = f"cd {shlex.quote(str(self.root))} && {command}"
        self.programs[name] = ManagedProcess(name, command, environment, self.folder / f"{name}.log")

    def _servers_settings(self) -> dict[str, str]:
        """Start the proxies; return the settings of a production stack on these servers."""
        if self.database is None:
            return {"SECRET_KEY": SECRET_KEY}  # else each process has its own, and accepts no other's session
        urls = {
            "DATABASE_URL": (self.haproxy or self.database).url,
            "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        }
        if self.redis:
            urls["REDIS_URL"] = self.redis.url
        if self._proxied and isinstance(self.redis, Redis):
            database = self.proxies["database"] = TcpProxy(free_port(), str(self.database.socket_path))
            broker = self.proxies["broker"] = TcpProxy(free_port(), ("127.0.0.1", self.redis.port))
            web = self.proxies["web"] = TcpProxy(free_port(), ("127.0.0.1", self.port))
            self.url_port = web.port
            # In seconds, shorter than production's; their order is the same.
            timeouts = "connect_timeout=2&read_timeout=7&write_timeout=7"
            urls["DATABASE_URL"] = f"mysql://root@127.0.0.1:{database.port}/prihod?{timeouts}"
            urls["REDIS_URL"] = f"redis://127.0.0.1:{broker.port}/0"
        production = {"DEBUG": "0", "SECRET_KEY": SECRET_KEY}
        return {**urls, **production, "WEBHOOK_AUTH": "none", "READ_AUTH": "none"}

    # Processes

    def __getitem__(self, name: str) -> ManagedProcess:
        return self.programs[name]

    @property
    def workers(self) -> list[ManagedProcess]:
        return [program for name, program in self.programs.items() if name.startswith("worker")]

    def start(self, *names: str, wait: bool = True) -> None:
        """Start these processes and wait until they are ready; workers only if there is a broker."""
        before = {name: self[name].ready_count() for name in names}
        for name in names:
            self[name].start()
        for name in names if wait else ():
            if name in self.web_ports:
                is_ready = partial(self.is_ready, self.web_ports[name])
                wait_until(is_ready, f"{name} is ready", START_SECONDS_MAX)
            elif name.startswith("worker") and self._broker:
                is_ready = partial(self[name].is_ready_again, before[name])
                wait_until(is_ready, f"{name} is ready", START_SECONDS_MAX)

    def heal(self) -> None:
        """End all faults: continue stopped processes, and restart killed ones."""
        for proxy in self.proxies.values():
            proxy.heal()
        self.resume_stopped()
        for server in (self.database, self.redis):
            if isinstance(server, Cluster | RedisWithSentinels | RabbitCluster):
                server.heal()
            elif server and not is_running(server):
                server.start()
            elif server:
                os.kill(server.pid, signal.SIGCONT)
        self.start_ended()
        wait_until(self.is_ready, "web is ready after healing", START_SECONDS_MAX)

    def start_ended(self) -> None:
        """Start the processes that have ended, as a supervisor does."""
        self.start(*(name for name, program in self.programs.items() if not program.runs()), wait=False)

    def resume_stopped(self) -> None:
        """Send SIGCONT to all stopped processes."""
        for pid in self.pids():
            if is_stopped(pid):
                os.kill(pid, signal.SIGCONT)

    def save_logs(self, folder: Path) -> None:
        """Copy the logs of processes and servers."""
        folder.mkdir(parents=True, exist_ok=True)
        for program in self.programs.values():
            shutil.copy(program.log, folder)
        nodes = self.database.nodes if isinstance(self.database, Cluster) else [self.database]
        for number, server in enumerate([*nodes, self.redis]):
            if server:
                shutil.copy(server.log, folder / f"{server.name.lower()}-{number}.log")

    def manage(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run manage.py with production's settings, without failpoints and seeded bugs."""
        return super().manage(*arguments, DJANGO_SETTINGS_MODULE="config.settings", **environment)

    @property
    def mariadb(self) -> MariaDB:
        if not isinstance(self.database, MariaDB):
            raise TypeError("this stack has no single MariaDB")
        return self.database

    @property
    def cluster(self) -> Cluster:
        if not isinstance(self.database, Cluster):
            raise TypeError("this stack has no cluster")
        return self.database

    @property
    def galera(self) -> GaleraCluster:
        if not isinstance(self.database, GaleraCluster):
            raise TypeError("this stack has no Galera")
        return self.database

    @property
    def broker(self) -> Redis:
        if not isinstance(self.redis, Redis):
            raise TypeError("this stack has no single Redis")
        return self.redis

    @property
    def sentinels(self) -> RedisWithSentinels:
        if not isinstance(self.redis, RedisWithSentinels):
            raise TypeError("this stack has no sentinels")
        return self.redis

    @property
    def rabbitmq(self) -> RabbitCluster:
        if not isinstance(self.redis, RabbitCluster):
            raise TypeError("this stack has no RabbitMQ")
        return self.redis

    def redis_command(self, command: str) -> Any:
        with redis.Redis.from_url(self.broker.url) as client:
            return client.execute_command(*command.split())

    # The database

    def session(self) -> Any:
        """Open a session without Django and without the proxy. The caller closes it."""
        if self.database is None:
            return sqlite3.connect(self.folder / "prihod.sqlite3", timeout=20)
        place = {"unix_socket": str(self.database.socket_path), "user": "root", "database": "prihod"}
        session = MySQLdb.connect(**place, charset="utf8mb4", connect_timeout=5, read_timeout=60)
        if self.database.session_init:
            execute(session, self.database.session_init)
        return session

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(self.session()) as session:
            rows = execute(session, statement, *values)
            session.commit()
            return rows

    def kill_sessions(self, observer: Any, query: str = "id FROM information_schema.processlist") -> None:
        """Kill the database sessions whose ids the query selects, except the observer's own."""
        for (key,) in execute(observer, f"SELECT {query}"):
            if key != observer.thread_id():
                with suppress(*DATABASE_ERRORS):  # it has ended, or belongs to the server
                    execute(observer, f"KILL {key}")

    def received(self) -> int:
        """Return the number of webhooks that are neither applied nor failed."""
        return int(self.sql("SELECT COUNT(*) FROM ingest_webhook WHERE status = 'received'")[0][0])


def execute(session: Any, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(session.cursor()) as cursor:
        cursor.execute(
            statement.replace("%s", "?") if isinstance(session, sqlite3.Connection) else statement, values
        )
        return list(cursor.fetchall())


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def is_running(server: MariaDB | Redis) -> bool:
    try:
        return Path(f"/proc/{server.pid}").exists()
    except ServerFailed:  # it has no pid
        return False
