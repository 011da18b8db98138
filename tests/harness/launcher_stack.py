"""A stack as `make run` starts it: the launcher with web, worker and scheduler as its children."""

import json
import os
import shutil
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

from tests.harness.processes import describe
from tests.harness.servers import ROOT
from tests.harness.stack import Stack
from tests.harness.templates import SQLITE_FILE, template
from tests.harness.wait import WaitTimeout, wait_until

READY_SECONDS_MAX = 150.0
STOP_SECONDS_MAX = 30.0  # the launcher kills after 8 s; a busy machine may be late
RETRY_SECONDS = 0.05
TOO_BUSY = (503, {"error": "too busy, please send again"})


class LauncherStack(Stack):
    """Ready after `with` or start(); leaving the block stops it and kills what is left.

    `environment` adds settings, for example WORKER_PROCESSES="4" or DATABASE_URL=…. An SQLite database is a
    migrated one unless `empty`.
    """

    def __init__(self, folder: Path, *, empty: bool = False, **environment: str) -> None:
        super().__init__(folder, data_dir=folder / "data")
        self._empty = empty
        self.log = folder / "output"
        self.environment = self.environment_with(environment)
        self.ready_seconds = self.stop_seconds = 0.0
        self.api_key = ""  # for reads
        self._starts = 0
        self._started_at = 0.0
        self._launcher: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        self.launch()
        return self.wait_until_ready()

    def launch(self) -> None:
        if not (self._starts or self._empty):
            self._copy_template()
        self._starts += 1
        self._started_at = time.monotonic()
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
        self.wait_until(lambda: launcher.poll() is not None or self.reports_ready(), "ready")
        assert launcher.poll() is None, f"ended with status {launcher.returncode}:\n{self.output()}"
        self.ready_seconds = time.monotonic() - self._started_at
        return self

    def reports_ready(self) -> bool:
        return self.output().count("Prihod is ready") == self._starts

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the launcher's process group, as a terminal does; return its exit status."""
        start = time.monotonic()
        assert self._launcher is not None
        os.killpg(self._launcher.pid, number)
        return self.wait(start)

    def wait(self, start: float | None = None) -> int:
        """Return the launcher's exit status. Raise WaitTimeout after STOP_SECONDS_MAX."""
        assert self._launcher is not None
        start = start or time.monotonic()
        try:
            status = self._launcher.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            raise WaitTimeout(f"still running after {STOP_SECONDS_MAX} s:\n{self.report()}") from None
        self.stop_seconds = time.monotonic() - start
        return status

    def output(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait_until(
        self,
        condition: Callable[[], object],
        what: str = "the expected state",
        seconds: float = READY_SECONDS_MAX,
    ) -> None:
        """Wait for the condition. Raise WaitTimeout with the stack's output and its processes."""
        wait_until(condition, what, seconds, log=self.report)

    def report(self) -> str:
        """Return the output, and a line for each process that runs."""
        return "\n".join([self.output(), *map(describe, self.pids())])

    @contextmanager
    def paused_workers(self) -> Iterator[None]:
        """Stop workers and scheduler with SIGSTOP for the block; web continues."""
        pids = self.pids("celery")
        with self.no_write():
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def no_write(self) -> Iterator[None]:
        """Keep SQLite's processes from writing: one that is stopped in a write would block all others."""
        if (file := self._sqlite_file()) is None:
            yield
            return
        with closing(sqlite3.connect(file, timeout=READY_SECONDS_MAX)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield

    def _copy_template(self) -> None:
        file = self._sqlite_file()
        if file and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(template("sqlite") / SQLITE_FILE, file)

    def _sqlite_file(self) -> Path | None:
        url = self.environment["DATABASE_URL"]
        if not url:
            return self.data_dir / SQLITE_FILE
        return Path(urlsplit(url).path[1:]) if url.startswith("sqlite:///") else None

    def get(self, path: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return self._request("GET", path, headers=headers)

    def json(self, path: str) -> Any:
        return json.loads(self.get(path)[1])

    def deliver(self, webhook: dict[str, object]) -> tuple[int, Any]:
        """Deliver as the bank does, which retries a 503; return status and JSON."""
        body = json.dumps(webhook).encode()
        while (response := self.post(body, {})) == TOO_BUSY:
            time.sleep(RETRY_SECONDS)
        return response

    def post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, Any]:
        """Deliver these bytes once; return status and JSON."""
        status, content = self._request("POST", "/api/webhook/bank/", body, headers)
        return status, json.loads(content)

    def wait_for_balance(self, inn: str, rubles: float) -> None:
        path = f"/api/organizations/{inn}/balance/"
        self.wait_until(lambda: self.json(path).get("balance") == rubles, f"balance of {inn} is {rubles}")

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[int, bytes]:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clean_up()

    def clean_up(self) -> None:
        """Stop the launcher if it runs, and kill every process that is left."""
        try:
            if self._launcher is not None and self._launcher.poll() is None:
                self.stop()
        finally:
            for pid in self.pids():
                with suppress(ProcessLookupError):  # it has ended
                    os.kill(pid, signal.SIGKILL)
            if self._launcher is not None:
                self._launcher.wait()
