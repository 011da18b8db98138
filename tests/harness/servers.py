"""Real database servers and a real Redis, private to whoever starts them: each in a temporary folder, on a
socket or port of its own, and gone when whoever started it is gone.

    with MariaDB() as database, Redis() as broker:
        run_something(DATABASE_URL=database.url, REDIS_URL=broker.url)

`python -m tests.harness.servers mariadb redis mysql mysqlclient` installs what they need. This uses the standard
library only, because it runs before anything is installed. It needs Linux.
"""

import argparse
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
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

ROOT = Path(__file__).resolve().parents[2]
MYSQL_TREE = ROOT / ".venv" / "mysql-sid"
PROMTOOL = ROOT / ".venv" / "promtool"

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 30.0
ANSWER_TIMEOUT_SECONDS = 1.0
POLL_SECONDS = 0.02
LOG_LINES_QUOTED = 20
SOCKET_PATH_BYTES_MAX = 107  # sun_path in <sys/un.h>, less its closing NUL
PORTS = range(20_000, 32_000)

# What is started under --pdeathsig is killed when the *thread* that started it ends. So that nothing dies
# with some short-lived thread of ours, one thread starts everything, and it lives until this process ends.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starter")


class ServerFailed(Exception):
    """A server did not start, or did not stop when told to; the message quotes the end of its log."""


def launch(
    command: Sequence[str | Path],
    *,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` as a process that cannot outlive this one, even if this one is killed with -9.

    With `log` its output is appended there, and it gets a session of its own, so that no Ctrl-C at the
    terminal reaches it; without, it shares ours.
    """
    # No server runs without setpriv (see lacking), but pytest on SQLite may.
    leash = ["setpriv", "--pdeathsig", "KILL", "--"] if _which("setpriv") else []
    leashed = [*leash, *command]
    if log is None:
        return _starter.submit(subprocess.Popen[bytes], leashed, env=environment).result()
    with log.open("ab") as output:
        return _starter.submit(
            subprocess.Popen[bytes],
            leashed,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ).result()


class Server(ABC):
    """One private server. start() after stop() or kill() finds the data as it was left; the end of the `with`
    block throws everything away.

    `settings` are added to the server's command line, after ours, so that they win.
    """

    name: ClassVar[str]

    def __init__(self, settings: Sequence[str] = ()) -> None:
        if lack := lacking(self.name):
            raise ServerFailed(lack)
        self.settings = tuple(settings)
        self.folder = Path(tempfile.mkdtemp(prefix="prihod-"))
        self.log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard()

    @property
    @abstractmethod
    def url(self) -> str:
        """What DATABASE_URL or REDIS_URL has to say to reach this server."""

    @abstractmethod
    def _program(self) -> list[str | Path]:
        """The server's binary, ready for options to be added."""

    @abstractmethod
    def _options(self) -> list[str]: ...

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it serves clients by now; may raise OSError for no."""

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def version(self) -> str:
        output = subprocess.check_output([*self._program(), "--version"], text=True)
        found = re.search(r"\d+\.\d+\.\d+", output)
        return found.group() if found else output.strip()

    def start(self) -> None:
        """Start it and wait until it answers. Raises ServerFailed."""
        if self._process is not None and self._process.poll() is None:
            raise ServerFailed(f"{self.name} is already running as process {self._process.pid}")
        self._process = launch([*self._program(), *self._options(), *self.settings], log=self.log)
        self._wait_until_it_answers(self._process)

    def stop(self) -> None:
        """Ask it to end in good order, and wait for that. Raises ServerFailed if it had to be killed."""
        process = self._running()
        process.terminate()
        process.send_signal(signal.SIGCONT)  # a stopped process would not hear it
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise self._failure(f"did not stop within {STOP_TIMEOUT_SECONDS:.0f} s") from error
        self._process = None

    def kill(self) -> None:
        """kill -9: as if the power had gone, except that the operating system's caches survive."""
        process = self._running()
        process.kill()
        process.wait()
        self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerFailed(f"{self.name} is not running")
        return self._process

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._is_up():
            if process.poll() is not None:
                self._process = None
                raise self._failure(f"ended with status {process.returncode} instead of starting")
            if time.monotonic() > deadline:
                self.kill()
                raise self._failure(f"did not answer within {START_TIMEOUT_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)

    def _is_up(self) -> bool:
        try:
            return self._answers()
        except OSError:
            return False

    def _run_once(self, command: Sequence[str | Path]) -> None:
        """Run a step of the preparation to its end."""
        status = launch(command, log=self.log).wait()
        if status != 0:
            raise self._failure(f"could not be prepared: {command[0]} ended with status {status}")

    def _failure(self, what: str) -> ServerFailed:
        log = self.log.read_text(errors="replace")
        return ServerFailed(_quoting(f"{self.name} {what}. The end of its log:", log))

    def _discard(self) -> None:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class _DatabaseServer(Server):
    """What MariaDB and MySQL have in common: reached by a unix socket only, by root without a password; a
    database called prihod is there from the start."""

    def __init__(self, settings: Sequence[str] = ()) -> None:
        super().__init__(settings)
        self.socket_path = self.folder / "sock"
        if len(os.fsencode(self.socket_path)) > SOCKET_PATH_BYTES_MAX:
            self._discard()
            raise ServerFailed(f"{self.socket_path} is too long for a socket; set TMPDIR to a shorter folder")

    @property
    def url(self) -> str:
        return f"mysql://root@localhost/prihod?unix_socket={self.socket_path}"

    def _options(self) -> list[str]:
        return [
            *self._options_for_every_run(),
            f"--socket={self.socket_path}",
            f"--pid-file={self.folder / 'pid'}",
            f"--init-file={self.folder / 'init.sql'}",
            "--skip-networking",
            "--character-set-server=utf8mb4",
            "--innodb-buffer-pool-size=256M",
            "--innodb-flush-log-at-trx-commit=1",
        ]

    def _options_for_every_run(self) -> list[str]:
        """What the preparation needs as well; --no-defaults has to come first.

        A server that starts removes temporary tables from its tmpdir, also those of others that run.
        """
        options = ["--no-defaults", f"--datadir={self.folder / 'data'}", f"--tmpdir={self.folder}"]
        return [*options, "--user=root"] if os.geteuid() == 0 else options

    def start(self) -> None:
        if not (self.folder / "data").exists():
            (self.folder / "init.sql").write_text("CREATE DATABASE IF NOT EXISTS prihod;\n")
            self._create_system_tables()
        super().start()

    @abstractmethod
    def _create_system_tables(self) -> None: ...

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(ANSWER_TIMEOUT_SECONDS)
            client.connect(str(self.socket_path))
            greeting = client.recv(5)
        # Three bytes of length, one of sequence, then the protocol's version, or 255 for an error:
        # https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets_protocol_handshake_v10.html
        return len(greeting) == 5 and greeting[4] == 10


class MariaDB(_DatabaseServer):
    name = "MariaDB"

    def _program(self) -> list[str | Path]:
        return [_found("mariadbd")]

    def _options(self) -> list[str]:
        return [*super()._options(), "--skip-log-bin"]

    def _create_system_tables(self) -> None:
        self._run_once(
            [
                _found("mariadb-install-db"),
                *self._options_for_every_run(),
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ]
        )


class MySQL(_DatabaseServer):
    """Oracle's MySQL out of MYSQL_TREE, run by that tree's own loader with its own libraries, which are newer
    than the system's. Its binary log is on, as it is by default."""

    name = "MySQL"

    def _program(self) -> list[str | Path]:
        loader = next(MYSQL_TREE.glob("usr/lib*/ld-linux*"))
        libraries = ":".join(str(folder) for folder in MYSQL_TREE.glob("usr/lib/*-linux-gnu*"))
        return [loader, "--library-path", libraries, MYSQL_TREE / "usr/sbin/mysqld"]

    def _options(self) -> list[str]:
        # With the binary log on, a user without SUPER could not create triggers otherwise.
        return [*super()._options(), "--log-bin-trust-function-creators=1", "--mysqlx=OFF"]

    def _options_for_every_run(self) -> list[str]:
        # Debian builds in a folder for LOAD DATA that exists only where its package is installed.
        return [*super()._options_for_every_run(), f"--basedir={MYSQL_TREE / 'usr'}", "--secure-file-priv="]

    def _create_system_tables(self) -> None:
        self._run_once([*self._program(), *self._options_for_every_run(), "--initialize-insecure"])


class Redis(Server):
    """On a loopback port that stays the same from start to start, with its data in an append-only file."""

    name = "Redis"

    def __init__(self, settings: Sequence[str] = ()) -> None:
        super().__init__(settings)
        self.port = free_port()
        # Debian's redis-tools has the server too: one binary that acts on the name it is called by.
        self.program = self.folder / "redis-server"
        self.program.symlink_to(_which("redis-server") or _found("redis-check-rdb"))

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _program(self) -> list[str | Path]:
        return [self.program]

    def _options(self) -> list[str]:
        place = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        return [*place, "--save", "", "--appendonly", "yes"]

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_TIMEOUT_SECONDS) as client:
            client.sendall(b"PING\r\n")
            return client.recv(5) == b"+PONG"


def _quoting(what: str, log: str) -> str:
    return "\n  ".join([what, *log.splitlines()[-LOG_LINES_QUOTED:]])


def free_port() -> int:
    """A free port below those that the kernel hands out to clients. With one of those, a client that keeps
    trying to reach a killed server may be given the server's port for its own end of the connection. It is
    then connected to itself, and the server can't start again.
    """
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _which(program: str) -> Path | None:
    folders = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    found = shutil.which(program, path=folders)
    return Path(found) if found else None


def _found(program: str) -> Path:
    path = _which(program)
    if path is None:
        raise ServerFailed(f"{program} is not installed")
    return path


# What is there, and how to get the rest

PACKAGES = {
    "MariaDB": ["mariadb-server-core", "mariadb-client-core"],
    "MySQL": ["debootstrap"],
    "Redis": ["redis-tools"],
    "mysqlclient": ["default-libmysqlclient-dev", "pkg-config", "gcc", "python3-dev"],
    "libfaketime": ["libfaketime"],  # wrong clocks, for the fault suite
    "wrk": ["wrk"],  # load, for the benchmark
    "Chromium": ["chromium"],  # for tests in a browser
    "promtool": [],  # checks Prometheus' rules; unpacked, not installed
}


def _mariadb_is_here() -> bool:
    # mariadb-install-db calls my_print_defaults, which Debian keeps with the clients.
    return all(map(_which, ["mariadbd", "mariadb-install-db", "my_print_defaults"]))


def _mysql_is_here() -> bool:
    return MYSQL_TREE.exists()


def _redis_is_here() -> bool:
    return any(map(_which, ["redis-server", "redis-check-rdb"]))


def _mysqlclient_is_here() -> bool:
    """Installed, or all is here that it is built from."""
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
    """The library that gives the process which preloads it another time; None where there is none."""
    return next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


def chromium() -> Path | None:
    """The browser; None where there is none."""
    return _which("chromium")


def promtool() -> Path | None:
    """The program that reads rules as Prometheus does; None where there is none."""
    return PROMTOOL if PROMTOOL.exists() else _which("promtool")


IS_HERE: dict[str, Callable[[], bool]] = {
    "MariaDB": _mariadb_is_here,
    "MySQL": _mysql_is_here,
    "Redis": _redis_is_here,
    "mysqlclient": _mysqlclient_is_here,
    "libfaketime": lambda: libfaketime() is not None,
    "wrk": lambda: _which("wrk") is not None,
    "Chromium": lambda: chromium() is not None,
    "promtool": lambda: promtool() is not None,
}


def lacking(name: str) -> str | None:
    """What is missing for `name`, a key of PACKAGES, and how to get it; None when nothing is."""
    if name != "mysqlclient" and not _which("setpriv"):
        return f"{name} can't be used without setpriv. Get it with: apt-get install util-linux"
    if IS_HERE[name]():
        return None
    if name in {"MySQL", "promtool"}:
        return f"{name} is missing. Get it, on Debian and as root, with: python -m tests.harness.servers {name.lower()}"
    if name == "mysqlclient":
        return f"mysqlclient can't be built here. Get what it needs with: {_install_command(name)}"
    return f"{name} is missing. Get it with: {_install_command(name)}"


def _install_command(name: str) -> str:
    return f"apt-get install --no-install-recommends {' '.join(PACKAGES[name])}"


def install(names: Iterable[str]) -> None:
    """Get what is missing, if this is root and has apt-get; otherwise do nothing. Raises ServerFailed."""
    missing = [name for name in names if lacking(name)]
    if not missing or not _which("apt-get") or os.geteuid() != 0:
        return
    _install_packages([package for name in missing for package in PACKAGES[name]])
    if "MySQL" in missing:
        _unpack_mysql()
    if "promtool" in missing:
        _unpack_promtool()


def _install_packages(packages: Sequence[str]) -> None:
    if not packages:
        return
    print(f"Installing {', '.join(packages)} with apt-get", flush=True)
    # Something else may be installing, too: machines that look after themselves do so without being asked.
    apt_get = ["apt-get", "-qq", "--option", "DPkg::Lock::Timeout=120"]
    _run_quietly(
        ["dpkg", "--configure", "-a"]
    )  # what an interrupted installation left; apt-get refuses to go on
    _run_quietly([*apt_get, "update"])
    _run_quietly([*apt_get, "install", "--yes", "--no-install-recommends", *packages])


def _unpack_mysql() -> None:
    """Debian stable has no MySQL, its unstable branch has. debootstrap fetches the package with all that it
    depends on, and checks the signatures. They are unpacked, not installed, so the system stays as it is."""
    print("Fetching MySQL and its libraries with debootstrap", flush=True)
    MYSQL_TREE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=MYSQL_TREE.parent, prefix="mysql-") as scratch:
        fetched, unpacked = Path(scratch, "fetched"), Path(scratch, "unpacked")
        fetch = ["debootstrap", "--download-only", "--force-check-gpg", "--variant=minbase"]
        _run_quietly([*fetch, "--include=mysql-server-core", "sid", str(fetched)])
        unpacked.mkdir()
        for package in sorted(fetched.glob("var/cache/apt/archives/*.deb")):
            _run_quietly(["dpkg-deb", "--extract", str(package), str(unpacked)])
        if not MYSQL_TREE.exists():  # someone else may have been quicker
            unpacked.rename(MYSQL_TREE)  # all at once: a tree that is there is complete


def _unpack_promtool() -> None:
    """Debian has it in prometheus, whose installation would start a service."""
    print("Fetching promtool out of Debian's package prometheus", flush=True)
    PROMTOOL.parent.mkdir(exist_ok=True)
    _run_quietly(["apt-get", "-qq", "update"])
    with tempfile.TemporaryDirectory(dir=PROMTOOL.parent, prefix="promtool-") as scratch:
        _run_quietly(["apt-get", "-qq", "download", "prometheus"], folder=scratch)
        package = next(Path(scratch).glob("prometheus_*.deb"))
        _run_quietly(["dpkg-deb", "--extract", str(package), scratch])
        Path(scratch, "usr/bin/promtool").replace(PROMTOOL)


def _run_quietly(command: Sequence[str], folder: str | None = None) -> None:
    """Run it, and show what it said only if it failed."""
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
        what = f"{' '.join(command)} ended with status {done.returncode}. The end of what it said:"
        raise ServerFailed(_quoting(what, done.stdout.decode(errors="replace")))


NOT_WITHOUT_SERVERS = "!! That is a failure, because of REQUIRE_SERVERS=1."


def servers_are_required() -> bool:
    """Whether a missing server is a failure rather than a reason to skip."""
    return os.environ.get("REQUIRE_SERVERS") == "1"


def main(arguments: Sequence[str] | None = None) -> int:
    by_lowercase = {name.lower(): name for name in PACKAGES}
    parser = argparse.ArgumentParser(
        prog="python -m tests.harness.servers",
        description="Install what these need, as root with apt-get; where that can't be, say how to get it. "
        "Fails only if something is still missing and REQUIRE_SERVERS=1.",
    )
    known = ", ".join(by_lowercase)
    parser.add_argument("names", nargs="+", choices=by_lowercase, metavar="name", help=known)
    names = [by_lowercase[name] for name in parser.parse_args(arguments).names]
    try:
        install(names)
    except ServerFailed as failure:
        print(failure, flush=True)
    missing = [lack for name in names if (lack := lacking(name))]
    for lack in missing:
        print(f"!! {lack}", flush=True)
    if missing and servers_are_required():
        print(NOT_WITHOUT_SERVERS, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
