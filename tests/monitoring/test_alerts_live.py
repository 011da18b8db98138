"""Alerts of a real scheduler and a real worker, with shortened intervals."""

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
from worker.heartbeats import heartbeat_path
from worker.models import Heartbeat

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.process]
wait_until = partial(wait.wait_until, seconds=40.0)
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
alerts.LEASE = timedelta(seconds=2)  # of a process killed during a check
stats.STALE_AFTER = timedelta(seconds=3)
notifications.TIMEOUT_SECONDS = 60.0
app.start(["--quiet", *sys.argv[1:]])
"""
SCHEDULER = ("beat",)
WORKER = ("worker", "--hostname", "tested@%h", "--concurrency", "1")


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Return a function that starts a process, which sends alerts to a port, on the test database."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the folder of heartbeat files
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    LedgerVerification.objects.create(duration=timedelta(seconds=1), rows_scanned=0)
    with ExitStack() as resources:

        def start_process(port: int, *arguments: str) -> "subprocess.Popen[bytes]":
            variables = {
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
                environment={**os.environ, **variables},
            )
            resources.callback(process.wait)
            resources.callback(process.kill)
            return process

        yield start_process


def test_killed_worker_and_its_return_are_sent_once_across_a_scheduler_restart(
    start: Start, tmp_path: Path
) -> None:
    log = (tmp_path / "log").read_text
    with webhook_receiver() as receiver:
        port = receiver.server_port
        worker = start(port, *WORKER)
        wait_until(Heartbeat.objects.exists, "a worker", log=log)  # before a check can find it missing
        scheduler = start(port, *SCHEDULER)
        wait_until(lambda: Heartbeat.objects.count() == 2, "both", log=log)
        worker.kill()
        # Killed between sending and storing, the scheduler would send the alert again.
        notified = Alert.objects.filter(cause="worker_down", notified_at__isnull=False)
        wait_until(notified.exists, "the stored notification", log=log)

        scheduler.kill()
        scheduler.wait()
        start(port, *SCHEDULER)
        before = Alert.objects.get(cause="worker_down").text  # has the duration
        wait_until(lambda: Alert.objects.get(cause="worker_down").text != before, "a few checks", log=log)
        start(port, *WORKER)
        wait_until(lambda: ("worker_down", "resolved") in receiver.states(), "its return", log=log)

        states = [state for cause, state in receiver.states() if cause == "worker_down"]
        assert states == ["firing", "resolved"]


def test_worker_reports_a_stopped_scheduler(start: Start, tmp_path: Path) -> None:
    log = (tmp_path / "log").read_text
    with webhook_receiver() as receiver:
        scheduler = start(receiver.server_port, *SCHEDULER)
        wait_until(Heartbeat.objects.exists, "a scheduler", log=log)
        start(receiver.server_port, *WORKER)
        wait_until(lambda: Heartbeat.objects.count() == 2, "both", log=log)
        with transaction.atomic():  # locks SQLite: stopped during a write, the scheduler would keep the lock
            scheduler.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, scheduler.pid, os.WSTOPPED | os.WNOWAIT)
        wait_until(lambda: ("scheduler_down", "firing") in receiver.states(), "the alert", log=log)


def test_silent_receiver_does_not_delay_a_sweep(start: Start, tmp_path: Path) -> None:
    log = (tmp_path / "log").read_text
    with silent_server() as silent:
        silent.settimeout(40)
        start(silent.getsockname()[1], *SCHEDULER)
        client, _ = silent.accept()  # the alert about the missing worker
        with client:
            for _ in range(5):
                before = heartbeat_path("scheduler").stat().st_mtime_ns
                wait_until(
                    lambda: heartbeat_path("scheduler").stat().st_mtime_ns > before,  # noqa: B023
                    "a sweep",
                    log=log,
                )
            assert "alert delivery failed" not in log()  # it still waits for a response
