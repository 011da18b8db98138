"""Private database servers and Redis: each in its own temporary folder, on its own socket or port. A server
stops when the process that started it ends.

    with MariaDB() as database, Redis() as broker:
        run_something(DATABASE_URL=database.url, REDIS_URL=broker.url)

`python -m tests.harness.servers mariadb redis mysql mysqlclient` installs the required packages. The module
uses only the standard library, because it runs before anything is installed. It needs Linux.
"""

import argparse
import importlib
import importlib.util
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from tests.harness.wait import WaitTimeout, wait_until

ROOT = Path(__file__).resolve().parents[2]
MYSQL_TREE = ROOT / ".venv" / "mysql-sid"
PROMTOOL = ROOT / ".venv" / "promtool"
CLUSTER_TREE = ROOT / ".venv" / "cluster"  # Galera and HAProxy
RABBITMQ_TREE = ROOT / ".venv" / "rabbitmq"

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 30.0
CONNECT_TIMEOUT_SECONDS = 1.0
LOG_LINES_QUOTED = 20
SOCKET_PATH_BYTES_MAX = 107  # sun_path in <sys/un.h>, less its closing NUL
PORTS = range(20_000, 32_000)

_reservations: list[socket.socket] = []  # of ports

# --pdeathsig kills a process when the *thread* that started it ends. One thread, which lives as long as this
# process, therefore starts everything.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starter")


class ServerFailed(Exception):
    """A server did not start or did not stop; the message quotes the end of its log."""


def launch(
    command: Sequence[str | Path],
    *,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` as a process that ends with this one, even if this one gets SIGKILL.

    With `log`, append its output there and start a new session, so that Ctrl-C in the terminal does not reach
    it. Otherwise it shares this process's session.
    """
    # Servers require setpriv (see missing_reason); pytest on SQLite does not.
    death_signal = ["setpriv", "--pdeathsig", "KILL", "--"] if _which("setpriv") else []
    full_command = [*death_signal, *command]
    if log is None:
        return _starter.submit(subprocess.Popen[bytes], full_command, env=environment).result()
    with log.open("ab") as output:
        return _starter.submit(
            subprocess.Popen[bytes],
            full_command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ).result()


class Server(ABC):
    """A private server. start() after stop() or kill() keeps the data; leaving the `with` block deletes it.

    `settings` are appended to the command line, so that they take precedence.
    """

    name: ClassVar[str]
    host = "127.0.0.1"
    start_seconds_max = START_TIMEOUT_SECONDS

    def __init__(self, settings: Sequence[str] = ()) -> None:
        if reason := missing_reason(self.name):
            raise ServerFailed(reason)
        self.settings = tuple(settings)
        self.folder = Path(tempfile.mkdtemp(prefix="prihod-"))
        self.log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._delete()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._delete()

    @property
    @abstractmethod
    def url(self) -> str:
        """Return the DATABASE_URL or REDIS_URL of this server."""

    @abstractmethod
    def _program(self) -> list[str | Path]:
        """Return the command of the server binary, without options."""

    @abstractmethod
    def _options(self) -> list[str]: ...

    @abstractmethod
    def _accepts_clients(self) -> bool:
        """Return whether the server accepts clients; may raise OSError if not."""

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def version(self) -> str:
        output = subprocess.check_output([*self._program(), "--version"], text=True)
        found = re.search(r"\d+\.\d+\.\d+", output)
        return found.group() if found else output.strip()

    def start(self) -> None:
        """Start the server and wait until it accepts clients. Raise ServerFailed if it does not."""
        if self._process is not None and self._process.poll() is None:
            raise ServerFailed(f"{self.name} is already running as process {self._process.pid}")
        self._wait_until_up(self._launch())

    def _launch(self) -> subprocess.Popen[bytes]:
        self._process = launch([*self._program(), *self._options(), *self.settings], log=self.log)
        return self._process

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log_end(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES_QUOTED:])

    def stop(self) -> None:
        """Shut the server down and wait. Raise ServerFailed if it had to be killed."""
        process = self._running()
        process.terminate()
        process.send_signal(signal.SIGCONT)  # a stopped process would not receive SIGTERM
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise self._failure(f"did not stop within {STOP_TIMEOUT_SECONDS:.0f} s") from error
        self._process = None

    def kill(self) -> None:
        """Send SIGKILL: like a power failure, except that the operating system's caches survive."""
        process = self._running()
        process.kill()
        process.wait()
        self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerFailed(f"{self.name} is not running")
        return self._process

    def _wait_until_up(self, process: subprocess.Popen[bytes]) -> None:
        try:
            wait_until(
                lambda: process.poll() is not None or self._is_up(),
                f"{self.name} accepts clients",
                self.start_seconds_max,
            )
        except WaitTimeout:
            self.kill()
            raise self._failure(f"did not accept clients within {self.start_seconds_max:.0f} s") from None
        if process.poll() is not None:
            self._process = None
            raise self._failure(f"ended with status {process.returncode} instead of starting")

    def _is_up(self) -> bool:
        try:
            return self._accepts_clients()
        except OSError:
            return False

    def _run_once(self, command: Sequence[str | Path]) -> None:
        """Run one setup command to its end. Raise ServerFailed if it fails."""
        status = launch(command, log=self.log).wait()
        if status != 0:
            raise self._failure(f"could not be prepared: {command[0]} ended with status {status}")

    def _failure(self, what: str) -> ServerFailed:
        log = self.log.read_text(errors="replace")
        return ServerFailed(_quoting(f"{self.name} {what}. The end of its log:", log))

    def _delete(self) -> None:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class ServerGroup(ABC):
    """Servers that start together, and end together with the `with` block."""

    @abstractmethod
    def members(self) -> Sequence[Server]:
        """Return the servers, in the order of their start."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in reversed(self.members()):
            server.__exit__(kind, error, trace)

    def start(self) -> None:
        for server in self.members():
            server.start()

    def heal(self) -> None:
        """Start the servers that do not run."""
        for server in self.members():
            if not server.is_running():
                server.start()


class _DatabaseServer(Server):
    """Base of MariaDB and MySQL: a Unix socket, root without a password, an empty database `prihod`.

    `data` is the data folder of a stopped server of the same kind, to start with a copy of it.
    """

    init_sql: ClassVar[str] = "CREATE DATABASE IF NOT EXISTS prihod;\n"  # at each start

    def __init__(self, settings: Sequence[str] = (), *, data: Path | None = None) -> None:
        super().__init__(settings)
        self._original = data
        self.socket_path = self.folder / "sock"
        if len(os.fsencode(self.socket_path)) > SOCKET_PATH_BYTES_MAX:
            self._delete()
            raise ServerFailed(f"{self.socket_path} is too long for a socket; set TMPDIR to a shorter folder")

    @property
    def url(self) -> str:
        return f"mysql://root@localhost/prihod?unix_socket={self.socket_path}"

    def session(self) -> Any:
        """Open a session of MySQLdb, which must be installed. The caller closes it."""
        place = {"unix_socket": str(self.socket_path), "user": "root", "database": "prihod"}
        return importlib.import_module("MySQLdb").connect(**place)

    def _options(self) -> list[str]:
        return [
            *self._common_options(),
            f"--socket={self.socket_path}",
            f"--pid-file={self.folder / 'pid'}",
            f"--init-file={self.folder / 'init.sql'}",
            "--skip-networking",
            "--character-set-server=utf8mb4",
            "--innodb-buffer-pool-size=256M",
            "--innodb-flush-log-at-trx-commit=1",
        ]

    def _common_options(self) -> list[str]:
        """Return the options that the setup commands need too; --no-defaults must come first.

        A starting server removes the temporary tables in its tmpdir, including those of other servers, so
        each has its own.
        """
        options = ["--no-defaults", f"--datadir={self.folder / 'data'}", f"--tmpdir={self.folder}"]
        return [*options, "--user=root"] if os.geteuid() == 0 else options

    def start(self) -> None:
        data = self.folder / "data"
        (self.folder / "init.sql").write_text(self.init_sql)
        if self._original:
            if not any(data.glob("*")):  # it may be a mounted file system
                self._run_once(["cp", "-r", "--sparse=always", f"{self._original}/.", data])
        elif not data.exists():
            self._create_system_tables()
        super().start()

    @abstractmethod
    def _create_system_tables(self) -> None: ...

    def _accepts_clients(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(CONNECT_TIMEOUT_SECONDS)
            client.connect(str(self.socket_path))
            greeting = client.recv(5)
        # Three bytes of length, one of sequence, then the protocol version, or 255 for an error:
        # https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets_protocol_handshake_v10.html
        return len(greeting) == 5 and greeting[4] == 10


class MariaDB(_DatabaseServer):
    name = "MariaDB"
    session_init = ""  # a statement at the start of each session of the tests

    def _program(self) -> list[str | Path]:
        return [_required("mariadbd")]

    def _options(self) -> list[str]:
        return [*super()._options(), "--skip-log-bin"]

    def _create_system_tables(self) -> None:
        self._run_once(
            [
                _required("mariadb-install-db"),
                *self._common_options(),
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ]
        )


class MySQL(_DatabaseServer):
    """Oracle's MySQL from MYSQL_TREE, run with that tree's loader and libraries, which are newer than the
    system's.

    The binary log is on, which is MySQL's default.
    """

    name = "MySQL"

    def _program(self) -> list[str | Path]:
        loader = next(MYSQL_TREE.glob("usr/lib*/ld-linux*"))
        libraries = ":".join(str(folder) for folder in MYSQL_TREE.glob("usr/lib/*-linux-gnu*"))
        return [loader, "--library-path", libraries, MYSQL_TREE / "usr/sbin/mysqld"]

    def _options(self) -> list[str]:
        # With the binary log on, only this lets a user without SUPER create triggers.
        return [*super()._options(), "--log-bin-trust-function-creators=1", "--mysqlx=OFF"]

    def _common_options(self) -> list[str]:
        # Debian's build has a default folder for LOAD DATA that exists only if its package is installed.
        return [*super()._common_options(), f"--basedir={MYSQL_TREE / 'usr'}", "--secure-file-priv="]

    def _create_system_tables(self) -> None:
        self._run_once([*self._program(), *self._common_options(), "--initialize-insecure"])


class Redis(Server):
    """Redis on a loopback port that stays the same after a restart, with an append-only file."""

    name = "Redis"

    def __init__(self, settings: Sequence[str] = ()) -> None:
        super().__init__(settings)
        self.port = free_port()
        # Debian's redis-tools contains the server too: one binary that behaves according to its name.
        self.program = self.folder / "redis-server"
        self.program.symlink_to(_which("redis-server") or _required("redis-check-rdb"))

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _program(self) -> list[str | Path]:
        return [self.program]

    def _options(self) -> list[str]:
        place = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        return [*place, "--save", "", "--appendonly", "yes"]

    def _accepts_clients(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=CONNECT_TIMEOUT_SECONDS) as client:
            client.sendall(b"PING\r\n")
            return client.recv(5) == b"+PONG"


def _quoting(what: str, log: str) -> str:
    return "\n  ".join([what, *log.splitlines()[-LOG_LINES_QUOTED:]])


def free_port() -> int:
    """Return a free port below the kernel's ephemeral range.

    A client that keeps reconnecting to a killed server on an ephemeral port may get that port as its own
    source port. It is then connected to itself, and the server can't bind the port again.

    Until this process ends, no other process that asks here gets the same port.
    """
    while True:
        port = random.choice(PORTS)
        reservation = socket.socket(socket.AF_UNIX)
        with socket.socket() as probe:
            try:
                reservation.bind(f"\0prihod-port-{port}")  # an abstract name: no file is left
                probe.bind(("127.0.0.1", port))
            except OSError:
                reservation.close()
                continue
        _reservations.append(reservation)
        return port


def _which(program: str) -> Path | None:
    folders = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    found = shutil.which(program, path=folders)
    return Path(found) if found else None


def _required(program: str) -> Path:
    path = _which(program)
    if path is None:
        raise ServerFailed(f"{program} is not installed")
    return path


# Detection and installation

PACKAGES = {
    "MariaDB": ["mariadb-server-core", "mariadb-client-core"],
    "MySQL": ["debootstrap"],
    "Redis": ["redis-tools"],
    "mysqlclient": ["default-libmysqlclient-dev", "pkg-config", "gcc", "python3-dev"],
    "libfaketime": ["libfaketime"],  # fake clocks, for the fault suite
    "wrk": ["wrk"],  # load, for the benchmark
    "Chromium": ["chromium"],  # for tests in a browser
    "promtool": [],  # checks Prometheus rules; unpacked, not installed
    "Galera": ["mariadb-server-core", "mariadb-client-core"],  # and UNPACKED_FOR_CLUSTERS
    "HAProxy": [],
    "RabbitMQ": [],
}
# Installing them would start services.
UNPACKED_FOR_CLUSTERS = [
    *("galera-4", "mariadb-server", "rsync", "libpopt0"),
    *("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"),
]
_ERLANG = (
    "asn1 base crypto eldap ftp inets mnesia os-mon parsetools public-key runtime-tools snmp ssl "
    "syntax-tools tftp tools xmerl"
)
UNPACKED_FOR_RABBITMQ = ["rabbitmq-server", *(f"erlang-{name}" for name in _ERLANG.split())]


def _mariadb_is_installed() -> bool:
    # mariadb-install-db calls my_print_defaults, which is in Debian's client package.
    return all(map(_which, ["mariadbd", "mariadb-install-db", "my_print_defaults"]))


def _mysql_is_installed() -> bool:
    return MYSQL_TREE.exists()


def _redis_is_installed() -> bool:
    return any(map(_which, ["redis-server", "redis-check-rdb"]))


def _mysqlclient_is_available() -> bool:
    """Return whether mysqlclient is installed or can be built."""
    if importlib.util.find_spec("MySQLdb"):
        return True
    python_headers = Path(sysconfig.get_path("include"), "Python.h")
    if not (python_headers.exists() and _which("gcc") and _which("pkg-config")):
        return False
    return any(
        subprocess.run(["pkg-config", "--exists", library], check=False).returncode == 0
        for library in ["mysqlclient", "mariadb", "libmariadb"]
    )


def libfaketime() -> Path | None:
    """Return the path of libfaketime, which fakes the time of a process that preloads it; None if not
    installed.
    """
    return next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


def chromium() -> Path | None:
    """Return the path of Chromium; None if not installed."""
    return _which("chromium")


def promtool() -> Path | None:
    """Return the path of promtool, which checks Prometheus rules; None if not installed."""
    return PROMTOOL if PROMTOOL.exists() else _which("promtool")


IS_INSTALLED: dict[str, Callable[[], bool]] = {
    "MariaDB": _mariadb_is_installed,
    "MySQL": _mysql_is_installed,
    "Redis": _redis_is_installed,
    "mysqlclient": _mysqlclient_is_available,
    "libfaketime": lambda: libfaketime() is not None,
    "wrk": lambda: _which("wrk") is not None,
    "Chromium": lambda: chromium() is not None,
    "promtool": lambda: promtool() is not None,
    "Galera": lambda: _mariadb_is_installed() and CLUSTER_TREE.exists(),
    "HAProxy": CLUSTER_TREE.exists,
    "RabbitMQ": RABBITMQ_TREE.exists,
}


def missing_reason(name: str) -> str | None:
    """Return what is missing for `name`, a key of PACKAGES, and how to install it; None if nothing is
    missing.
    """
    if name != "mysqlclient" and not _which("setpriv"):
        return f"{name} needs setpriv. Install it with: apt-get install util-linux"
    if IS_INSTALLED[name]():
        return None
    if name in {"MySQL", "promtool", "Galera", "HAProxy", "RabbitMQ"}:
        command = f"python -m tests.harness.servers {name.lower()}"
        return f"{name} is missing. Install it on Debian as root with: {command}"
    if name == "mysqlclient":
        return f"mysqlclient can't be built. Install its build dependencies with: {_install_command(name)}"
    return f"{name} is missing. Install it with: {_install_command(name)}"


def _install_command(name: str) -> str:
    return f"apt-get install --no-install-recommends {' '.join(PACKAGES[name])}"


def install(names: Iterable[str]) -> None:
    """Install what is missing if this is root on a system with apt-get. Raise ServerFailed if that fails."""
    missing = [name for name in names if missing_reason(name)]
    if not missing or not _which("apt-get") or os.geteuid() != 0:
        return
    _install_packages([package for name in missing for package in PACKAGES[name]])
    if "MySQL" in missing:
        _unpack_mysql()
    if "promtool" in missing:
        _unpack_promtool()
    if {"Galera", "HAProxy"} & set(missing) and not CLUSTER_TREE.exists():
        _unpack("Galera and HAProxy", UNPACKED_FOR_CLUSTERS, CLUSTER_TREE)
    if "RabbitMQ" in missing:
        _unpack("RabbitMQ", UNPACKED_FOR_RABBITMQ, RABBITMQ_TREE)


def _install_packages(packages: Sequence[str]) -> None:
    if not packages:
        return
    print(f"Installing {', '.join(packages)} with apt-get", flush=True)
    # Another installation may be running: some machines update themselves.
    apt_get = ["apt-get", "-qq", "--option", "DPkg::Lock::Timeout=120"]
    _run_quietly(["dpkg", "--configure", "-a"])  # apt-get refuses to run after an interrupted installation
    _run_quietly([*apt_get, "update"])
    _run_quietly([*apt_get, "install", "--yes", "--no-install-recommends", *packages])


def _unpack_mysql() -> None:
    """Unpack MySQL from Debian unstable; Debian stable has none.

    debootstrap downloads the package with its dependencies and checks the signatures. Nothing is installed
    into the system.
    """
    print("Fetching MySQL and its libraries with debootstrap", flush=True)
    MYSQL_TREE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=MYSQL_TREE.parent, prefix="mysql-") as scratch:
        fetched, unpacked = Path(scratch, "fetched"), Path(scratch, "unpacked")
        fetch = ["debootstrap", "--download-only", "--force-check-gpg", "--variant=minbase"]
        _run_quietly([*fetch, "--include=mysql-server-core", "sid", str(fetched)])
        unpacked.mkdir()
        for package in sorted(fetched.glob("var/cache/apt/archives/*.deb")):
            _run_quietly(["dpkg-deb", "--extract", str(package), str(unpacked)])
        if not MYSQL_TREE.exists():  # a concurrent run may have finished first
            unpacked.rename(MYSQL_TREE)  # atomic: an existing tree is complete


def _unpack_promtool() -> None:
    """Unpack promtool; installing Debian's package prometheus would start a service."""
    print("Fetching promtool out of Debian's package prometheus", flush=True)
    PROMTOOL.parent.mkdir(exist_ok=True)
    _run_quietly(["apt-get", "-qq", "update"])
    with tempfile.TemporaryDirectory(dir=PROMTOOL.parent, prefix="promtool-") as scratch:
        _run_quietly(["apt-get", "-qq", "download", "prometheus"], folder=scratch)
        package = next(Path(scratch).glob("prometheus_*.deb"))
        _run_quietly(["dpkg-deb", "--extract", str(package), scratch])
        Path(scratch, "usr/bin/promtool").replace(PROMTOOL)


def _unpack(name: str, packages: Sequence[str], tree: Path) -> None:
    print(f"Fetching {name} out of Debian's packages", flush=True)
    tree.parent.mkdir(exist_ok=True)
    _run_quietly(["apt-get", "-qq", "update"])
    with tempfile.TemporaryDirectory(dir=tree.parent, prefix=f"{tree.name}-") as scratch:
        _run_quietly(["apt-get", "-qq", "download", *packages], folder=scratch)
        unpacked = Path(scratch, "unpacked")
        unpacked.mkdir(mode=0o755)
        for package in sorted(Path(scratch).glob("*.deb")):
            _run_quietly(["dpkg-deb", "--extract", str(package), str(unpacked)])
        if not tree.exists():  # a concurrent run may have finished first
            unpacked.rename(tree)


def _run_quietly(command: Sequence[str], folder: str | None = None) -> None:
    """Run `command`; raise ServerFailed with the end of its output if it fails."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command,
        check=False,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode != 0:
        what = f"{' '.join(command)} ended with status {done.returncode}. The end of its output:"
        raise ServerFailed(_quoting(what, done.stdout.decode(errors="replace")))


REQUIRED_SERVERS_MISSING = "!! That is a failure, because of REQUIRE_SERVERS=1."


def servers_are_required() -> bool:
    """Return whether a missing server is a failure instead of a reason to skip."""
    return os.environ.get("REQUIRE_SERVERS") == "1"


def main(arguments: Sequence[str] | None = None) -> int:
    by_lowercase = {name.lower(): name for name in PACKAGES}
    parser = argparse.ArgumentParser(
        prog="python -m tests.harness.servers",
        description="Install these with apt-get as root; otherwise print how to install them. "
        "Fails only if something is still missing and REQUIRE_SERVERS=1.",
    )
    known = ", ".join(by_lowercase)
    parser.add_argument("names", nargs="+", choices=by_lowercase, metavar="name", help=known)
    names = [by_lowercase[name] for name in parser.parse_args(arguments).names]
    try:
        install(names)
    except ServerFailed as failure:
        print(failure, flush=True)
    missing = [reason for name in names if (reason := missing_reason(name))]
    for reason in missing:
        print(f"!! {reason}", flush=True)
    if missing and servers_are_required():
        print(REQUIRED_SERVERS_MISSING, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
