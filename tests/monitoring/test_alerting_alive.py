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

from ingest.models import Verification
from monitoring.models import Alert
from tests import waiting
from tests.receivers import never_answering, receiving
from tests.servers import ROOT, launch
from worker.marks import mark_of
from worker.models import Beat

pytestmark = pytest.mark.django_db(transaction=True)
until = partial(waiting.until, seconds=40.0)
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
from monitoring import alerting, figures, telling
from worker import beats
from worker.celery import app

alerting.EVERY_SECONDS = beats.EVERY_SECONDS = 0.2
alerting.LEASE = timedelta(seconds=2)  # of who is killed at a look
figures.SILENT_AFTER = timedelta(seconds=3)
telling.SECONDS_MAX = 60.0
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
    Verification.objects.create(took=timedelta(seconds=1), rows_looked_at=0)
    with ExitStack() as ends:

        def started(port: int, *arguments: str) -> "subprocess.Popen[bytes]":
            ours = {
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(tmp_path),
                "DATA_DIR": str(tmp_path / "data"),
                "TEST_DATABASE": str(connection.settings_dict["NAME"]),
                "ALERT_WEBHOOK_URL": f"http://127.0.0.1:{port}/",
                "SWEEP_EVERY_SECONDS": "0.2",
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
    with receiving() as receiver:
        port = receiver.server_port
        worker = start(port, *WORKER)
        until("a worker", Beat.objects.exists, log)  # before anybody could miss it
        scheduler = start(port, *BEAT)
        until("both", lambda: Beat.objects.count() == 2, log)
        worker.kill()
        marked = Alert.objects.filter(cause="no worker", told_at__isnull=False)
        until("the news, and that it is told", marked.exists, log)  # killed in between it were told twice

        scheduler.kill()
        scheduler.wait()
        start(port, *BEAT)
        looked = Alert.objects.get(cause="no worker").text  # says for how long
        until("some looks", lambda: Alert.objects.get(cause="no worker").text != looked, log)
        start(port, *WORKER)
        until("its return", lambda: ("no worker", "over") in receiver.states(), log)

        about_workers = [state for cause, state in receiver.states() if cause == "no worker"]
        assert about_workers == ["new", "over"]


def test_a_silent_scheduler_is_told_by_a_worker(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with receiving() as receiver:
        scheduler = start(receiver.server_port, *BEAT)
        until("a scheduler", Beat.objects.exists, log)
        start(receiver.server_port, *WORKER)
        until("both", lambda: Beat.objects.count() == 2, log)
        with transaction.atomic():  # SQLite's lock is this test's then: stopped in a write, it would keep it
            scheduler.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, scheduler.pid, os.WSTOPPED | os.WNOWAIT)
        until("the news", lambda: ("no scheduler", "new") in receiver.states(), log)


def test_a_receiver_that_never_answers_does_not_delay_a_sweep(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with never_answering() as silent:
        silent.settimeout(40)
        start(silent.getsockname()[1], *BEAT)
        caller, _ = silent.accept()  # there is no worker
        with caller:
            for _ in range(5):
                before = mark_of("beat").stat().st_mtime_ns
                until("a sweep", lambda: mark_of("beat").stat().st_mtime_ns > before, log)  # noqa: B023
            assert "alert is not delivered" not in log.read_text()  # it still waits for us
