"""Alerts of a real scheduler and a real worker, whose clocks tick faster than in life."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from django.db import connection, transaction

from ingest.models import LedgerVerification
from monitoring.models import Alert
from tests.alert_receivers import silent_server, webhook_receiver
from tests.harness import wait
from tests.harness.servers import ROOT, launch
from worker.marks import heartbeat_path
from worker.models import Heartbeat

pytestmark = pytest.mark.django_db(transaction=True)
until = partial(wait.wait_until, seconds=40.0)
Start = Callable[..., "subprocess.Popen[bytes]"]

PROGRAM = """
import os
import sys
from datetime import timedelta

import django
from django.conf import settings

os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
settings.DATABASES["default"]["NAME"] = os.environ["TEST_DATABASE"]
django.setup()
from monitoring import alerts, notifications, stats
from worker import heartbeats
from worker.celery import app

alerts.CHECK_INTERVAL_SECONDS = heartbeats.INTERVAL_SECONDS = 0.2
alerts.LEASE = timedelta(seconds=2)  # of who is killed at a look
stats.STALE_AFTER = timedelta(seconds=3)
notifications.SECONDS_MAX = 60.0
app.start(["--quiet", *sys.argv[1:]])
"""
BEAT = ("beat",)
WORKER = ("worker", "--hostname", "tested@%h", "--concurrency", "1")


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts one, on this run's broker and test database, that tells the receiver at a port."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where marks are
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    LedgerVerification.objects.create(duration=timedelta(seconds=1), rows_scanned=0)
    with ExitStack() as ends:

        def started(port: int, *arguments: str) -> "subprocess.Popen[bytes]":
            ours = {
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(tmp_path),
                "DATA_DIR": str(tmp_path / "data"),
                "TEST_DATABASE": str(connection.settings_dict["NAME"]),
                "ALERT_WEBHOOK_URL": f"http://127.0.0.1:{port}/",
                "SWEEP_INTERVAL_SECONDS": "0.2",
            }
            process = launch(
                [sys.executable, program, *arguments],
                log=tmp_path / "log",
                environment={**os.environ, **ours},
            )
            ends.callback(process.wait)
            ends.callback(process.kill)
            return process

        yield started


def test_a_killed_worker_is_told_once_and_so_is_its_return_also_by_a_scheduler_that_starts_anew(
    start: Start, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with webhook_receiver() as receiver:
        port = receiver.server_port
        worker = start(port, *WORKER)
        until("a worker", Heartbeat.objects.exists, log)  # before anybody could miss it
        scheduler = start(port, *BEAT)
        until("both", lambda: Heartbeat.objects.count() == 2, log)
        worker.kill()
        marked = Alert.objects.filter(cause="worker_down", notified_at__isnull=False)
        until("the news, and that it is told", marked.exists, log)  # killed in between it were told twice

        scheduler.kill()
        scheduler.wait()
        start(port, *BEAT)
        looked = Alert.objects.get(cause="worker_down").text  # says for how long
        until("some looks", lambda: Alert.objects.get(cause="worker_down").text != looked, log)
        start(port, *WORKER)
        until("its return", lambda: ("worker_down", "over") in receiver.states(), log)

        about_workers = [state for cause, state in receiver.states() if cause == "worker_down"]
        assert about_workers == ["new", "over"]


def test_a_silent_scheduler_is_told_by_a_worker(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with webhook_receiver() as receiver:
        scheduler = start(receiver.server_port, *BEAT)
        until("a scheduler", Heartbeat.objects.exists, log)
        start(receiver.server_port, *WORKER)
        until("both", lambda: Heartbeat.objects.count() == 2, log)
        with transaction.atomic():  # SQLite's lock is this test's then: stopped in a write, it would keep it
            scheduler.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, scheduler.pid, os.WSTOPPED | os.WNOWAIT)
        until("the news", lambda: ("scheduler_down", "new") in receiver.states(), log)


def test_a_receiver_that_never_answers_does_not_delay_a_sweep(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with silent_server() as silent:
        silent.settimeout(40)
        start(silent.getsockname()[1], *BEAT)
        caller, _ = silent.accept()  # there is no worker
        with caller:
            for _ in range(5):
                before = heartbeat_path("beat").stat().st_mtime_ns
                until("a sweep", lambda: heartbeat_path("beat").stat().st_mtime_ns > before, log)  # noqa: B023
            assert "alert delivery failed" not in log.read_text()  # it still waits for us
