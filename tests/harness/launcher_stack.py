"""The whole house as real processes: what `make run` execs, on a free port and a folder of its own."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

from tests.harness.processes import start_time_ticks
from tests.harness.servers import ROOT, free_port

READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0  # the launcher kills after 8; a busy machine may be late
POLL_SECONDS = 0.05
LOAD_SHED = (503, {"error": "too busy, please send again"})
# Empty is as good as unset, and what a developer's .env holds doesn't count then.
CLEAN_ENVIRONMENT = dict.fromkeys(
    [
        *("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DEBUG", "HOST", "LOG_LEVEL", "ALLOWED_HOSTS"),
        *("WEBHOOK_AUTH", "WEBHOOK_SECRETS", "WEBHOOK_X_SIGNATURE_SECRETS", "WEBHOOK_PUBLIC_KEY_FILE"),
        *("WEBHOOK_BASIC_AUTH", "WEBHOOK_BEARER_TOKENS", "WEBHOOK_NETWORKS", "WEBHOOK_TOLERANCE_SECONDS"),
        *("TRUSTED_PROXIES", "READ_AUTH", "METRICS_TOKEN", "METRICS_PORT"),
        *("SENTRY_DSN", "SENTRY_ENVIRONMENT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME"),
        *("ALERT_EMAILS", "ALERT_WEBHOOK_URL", "EMAIL_URL"),
    ],
    "",
)


class LauncherStack:
    """Started by `with` or start(), ready when that returns; leaving the block stops and cleans up.

    `environment` adds to the launcher's: WORKER_PROCESSES="4", DATABASE_URL=…
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        self.port = free_port()
        self.data_dir = folder / "data"
        self.log = folder / "output"
        self.mark = f"house-{uuid4()}"
        self.environment = {
            **os.environ,
            **CLEAN_ENVIRONMENT,
            "PORT": str(self.port),
            "DATA_DIR": str(self.data_dir),
            "HOUSE": self.mark,  # whatever descends from the launcher can be told by it
            **environment,
        }
        self.ready_seconds = self.stop_seconds = 0.0
        self.api_key = ""  # what it is read with
        self._starts = 0
        self._begun = 0.0
        self._launcher: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        self.launch()
        return self.wait_until_ready()

    def launch(self) -> None:
        self._starts += 1
        self._begun = time.monotonic()
        with self.log.open("ab") as log:
            self._launcher = subprocess.Popen(
                [sys.executable, "-m", "devtools.run"],
                cwd=ROOT,
                env=self.environment,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self) -> Self:
        launcher = self._launcher
        assert launcher is not None
        wait_until(lambda: launcher.poll() is not None or self.reports_ready(), self)
        assert launcher.poll() is None, f"ended with status {launcher.returncode}:\n{self.output()}"
        self.ready_seconds = time.monotonic() - self._begun
        return self

    def reports_ready(self) -> bool:
        return self.output().count("Prihod is ready") == self._starts

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the launcher's group, as a terminal does; its exit status, within STOP_SECONDS_MAX."""
        begun = time.monotonic()
        assert self._launcher is not None
        os.killpg(self._launcher.pid, number)
        return self.wait(begun)

    def wait(self, begun: float | None = None) -> int:
        """The exit status of a launcher that is about to end."""
        assert self._launcher is not None
        begun = begun or time.monotonic()
        try:
            status = self._launcher.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {STOP_SECONDS_MAX} s:\n{self.output()}") from None
        self.stop_seconds = time.monotonic() - begun
        return status

    def output(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def pids(self, containing: str = "") -> list[int]:
        """All its processes, the eldest first; or those whose command line contains this."""
        found = [
            int(folder.name)
            for folder in Path("/proc").glob("[0-9]*")
            if self.mark in _read(folder / "environ") and containing in _read(folder / "cmdline")
        ]
        # Not by id: a child's is the lower one when the ids have begun anew.
        return sorted(found, key=start_time_ticks)

    @contextmanager
    def paused_workers(self) -> Iterator[None]:
        """Workers and scheduler; web goes on."""
        pids = self.pids("celery")
        with self._nobody_writing():
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def _nobody_writing(self) -> Iterator[None]:
        """On SQLite: whoever stands still while writing there holds up everybody."""
        url = self.environment["DATABASE_URL"] or f"sqlite:///{self.data_dir / 'prihod.sqlite3'}"
        if not url.startswith("sqlite:"):
            yield
            return
        with closing(sqlite3.connect(urlsplit(url).path[1:], timeout=READY_SECONDS_MAX)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run manage.py on the same data, also when the house is stopped."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=100,
        )

    def get(self, path: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return self._request("GET", path, headers=headers)

    def answers(self, path: str) -> bool:
        try:
            return self.get(path)[0] == 200
        except OSError:
            return False

    def json(self, path: str) -> Any:
        return json.loads(self.get(path)[1])

    def deliver(self, webhook: dict[str, object]) -> tuple[int, Any]:
        """What the bank does, also where a busy machine sheds it; the status and the answer."""
        body = json.dumps(webhook).encode()
        while (answered := self.post(body, {})) == LOAD_SHED:
            time.sleep(POLL_SECONDS)
        return answered

    def post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, Any]:
        """A delivery byte for byte; the status and the answer."""
        status, answer = self._request("POST", "/api/webhook/bank/", body, headers)
        return status, json.loads(answer)

    def wait_for_balance(self, inn: str, rubles: float) -> None:
        path = f"/api/organizations/{inn}/balance/"
        wait_until(lambda: self.json(path).get("balance") == rubles, self)

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clean_up()

    def clean_up(self) -> None:
        """Whatever a test has left of it is gone afterwards."""
        try:
            if self._launcher is not None and self._launcher.poll() is None:
                self.stop()
        finally:
            for pid in self.pids():
                with suppress(ProcessLookupError):  # it has ended since
                    os.kill(pid, signal.SIGKILL)
            if self._launcher is not None:
                self._launcher.wait()


def wait_until(holds: Callable[[], bool], stack: LauncherStack, seconds: float = READY_SECONDS_MAX) -> None:
    """Wait for it; an AssertionError shows the house's output."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s for nothing:\n{stack.output()}"
        time.sleep(POLL_SECONDS)


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode(errors="replace")
    except OSError:  # it has ended
        return ""
