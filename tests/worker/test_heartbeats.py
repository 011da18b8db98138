import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from celery import current_app
from django.conf import settings
from django.core.management import call_command
from django.db import DatabaseError
from django.db.models import QuerySet

from core.db import clock
from tests.harness import wait
from tests.harness.servers import ROOT, Redis, launch, missing_reason
from worker import beat_scheduler, heartbeats, sweeper
from worker.heartbeats import EXPIRED_AFTER, INTERVAL_SECONDS, SchedulerHeartbeat, record_heartbeat
from worker.marks import heartbeat_path
from worker.models import Heartbeat

pytestmark = pytest.mark.django_db(transaction=True)
until = partial(wait.wait_until, seconds=60.0)
WORKER = Heartbeat.Kind.WORKER


@pytest.fixture(autouse=True)
def marks_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def alive(*arguments: str) -> tuple[int | str | None, str]:
    output = StringIO()
    try:
        call_command("heartbeat", *arguments, stdout=output)
    except SystemExit as end:
        return end.code, output.getvalue()
    return 0, output.getvalue()


def test_a_worker_has_one_row_however_often_it_beats() -> None:
    record_heartbeat(WORKER, "worker-8000@one", 2)
    first = Heartbeat.objects.get().seen_at
    record_heartbeat(WORKER, "worker-8000@one", 4)
    record_heartbeat(WORKER, "worker-8000@two", 2)

    one, two = Heartbeat.objects.order_by("name")
    assert (one.kind, one.processes, two.processes) == (WORKER, 4, 2)
    assert one.seen_at >= first


def test_the_long_gone_are_forgotten_by_the_next_beat() -> None:
    record_heartbeat(WORKER, "gone", 1)
    Heartbeat.objects.update(seen_at=clock.database_now() - EXPIRED_AFTER - timedelta(seconds=1))

    record_heartbeat(WORKER, "here", 1)

    assert [one.name for one in Heartbeat.objects.all()] == ["here"]


def test_a_database_that_fails_is_no_reason_to_fall_silent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DatabaseError("gone away")

    monkeypatch.setattr(QuerySet, "update", fail)
    SchedulerHeartbeat().beat()

    assert heartbeat_path("beat").exists()
    assert "heartbeat write failed" in caplog.text


def test_the_schedulers_row_is_written_less_often_than_its_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = SchedulerHeartbeat()
    scheduler.beat()
    assert Heartbeat.objects.get().name == f"beat-{settings.PORT}@{socket.gethostname()}"
    Heartbeat.objects.all().delete()
    heartbeat_path("beat").unlink()

    scheduler.beat()
    assert heartbeat_path("beat").exists()
    assert not Heartbeat.objects.exists()

    later = time.monotonic() + INTERVAL_SECONDS
    monkeypatch.setattr(time, "monotonic", lambda: later)
    scheduler.beat()
    assert Heartbeat.objects.exists()


def test_only_a_sweep_that_succeeds_is_a_beat_of_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = beat_scheduler.InProcessScheduler(current_app, lazy=True)
    scheduler.beats = SchedulerHeartbeat()

    def run(name: str) -> None:
        scheduler.apply_async(
            beat_scheduler.MonotonicEntry(name=name, task=f"worker.tasks.{name}", schedule=1.0)
        )

    def fail() -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(sweeper, "sweep", fail)
        with pytest.raises(RuntimeError):
            run("sweep")
        for name in ("count_minutes", "prune"):
            run(name)
    assert not heartbeat_path("beat").exists()
    assert not Heartbeat.objects.exists()

    run("sweep")
    assert heartbeat_path("beat").exists()
    assert Heartbeat.objects.get().kind == Heartbeat.Kind.SCHEDULER


def test_alive_says_how_old_the_last_beat_is() -> None:
    assert alive("worker") == (
        1,
        f"worker: no beat on this machine for PORT={settings.PORT} ({heartbeat_path('worker')})\n",
    )

    heartbeat_path("worker").touch()
    assert alive("worker") == (0, "worker: alive, last beat 0 s ago\n")
    assert alive("beat")[0] == 1

    os.utime(heartbeat_path("worker"), (time.time() - 90,) * 2)
    assert alive("worker") == (1, "worker: silent, last beat 90 s ago\n")
    assert alive("worker", "--max-age", "120")[0] == 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Starts a real one, on this run's broker and test database; it beats fifty times as often."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with ExitStack() as ends:

        def started(**environment: str) -> "subprocess.Popen[bytes]":
            ours = {
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(tmp_path),
                "DATA_DIR": str(tmp_path / "data"),
                "TEST_DATABASE": str(heartbeats.connection.settings_dict["NAME"]),
            }
            process = launch(
                [sys.executable, program],
                log=tmp_path / "log",
                environment={**os.environ, **ours, **environment},
            )
            ends.callback(process.wait)
            ends.callback(process.kill)
            return process

        yield started


@pytest.fixture
def worker(start: Callable[..., "subprocess.Popen[bytes]"]) -> "subprocess.Popen[bytes]":
    return start()


PROGRAM = """
import os
import time
from pathlib import Path

import django
from django.conf import settings

os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
settings.DATABASES["default"]["NAME"] = os.environ["TEST_DATABASE"]
django.setup()
from worker import beats
from worker.celery import app

beats.EVERY_SECONDS = 0.2


@app.task
def be_long():
    folder = Path(os.environ["TMPDIR"])
    (folder / "begun").touch()
    while not (folder / "enough").exists():
        time.sleep(0.05)


if os.environ.get("STARTED") == "beat":
    app.start(["--quiet", "beat"])
else:
    be_long.delay()
    app.worker_main(["--quiet", "worker", "--hostname", "tested@%h", "--concurrency", "2"])
"""


def test_a_real_worker_beats_during_a_long_task_too_and_leaves_in_good_order(
    worker: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    log = tmp_path / "log"
    until("a beat", Heartbeat.objects.exists, log)
    first = Heartbeat.objects.get()
    assert first.name == f"tested@{socket.gethostname()}"
    assert first.processes == (2 if settings.REDIS_URL else 1)
    until("a long task", (tmp_path / "begun").exists, log)
    until_it_beats_after(Heartbeat.objects.get().seen_at, log)
    assert heartbeat_path("worker").exists()
    (tmp_path / "enough").touch()

    worker.terminate()
    assert worker.wait(timeout=30) == 0, log.read_text()
    assert not Heartbeat.objects.exists()
    assert not heartbeat_path("worker").exists()


def test_a_real_scheduler_beats_and_leaves_in_good_order(
    start: Callable[..., "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    scheduler = start(STARTED="beat")
    until("a beat", Heartbeat.objects.filter(kind=Heartbeat.Kind.SCHEDULER).exists, tmp_path / "log")

    scheduler.terminate()

    scheduler.wait(timeout=60)
    assert not Heartbeat.objects.exists()
    assert not heartbeat_path("beat").exists()


@pytest.mark.skipif(missing_reason("Redis") is not None, reason="needs a Redis of its own")
def test_a_worker_that_lost_the_broker_falls_silent_and_beats_again(
    start: Callable[..., "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    (tmp_path / "enough").touch()
    with Redis() as redis:
        start(REDIS_URL=redis.url)
        until("a beat", Heartbeat.objects.exists, log)
        until_it_beats_after(Heartbeat.objects.get().seen_at, log)  # only then it has begun to take messages
        redis.kill()
        until("its trouble", lambda: "Connection to broker lost" in log.read_text(), log)
        before = Heartbeat.objects.get().seen_at
        redis.start()
        until_it_beats_after(before, log)
        until_it_beats_after(Heartbeat.objects.get().seen_at, log)


def until_it_beats_after(moment: datetime, log: Path) -> None:
    until(f"a beat after {moment}", Heartbeat.objects.filter(seen_at__gt=moment).exists, log)


def test_a_worker_that_was_killed_stays_to_be_seen(worker: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    until("a beat", Heartbeat.objects.exists, tmp_path / "log")
    worker.kill()
    worker.wait()

    assert Heartbeat.objects.get().kind == WORKER
