import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import current_app
from django.conf import settings
from django.core.management import call_command
from django.db import DatabaseError
from django.db.models import QuerySet

from core.db import clock
from tests.harness.servers import ROOT, Redis, launch, missing_reason
from tests.harness.wait import wait_until
from worker import (
    beat_scheduler,
    heartbeats,
    sweeper,
    tasks,  # noqa: F401 registers the tasks that the scheduler runs
)
from worker.heartbeats import (
    EXPIRED_AFTER,
    INTERVAL_SECONDS,
    SchedulerHeartbeat,
    heartbeat_path,
    record_heartbeat,
)
from worker.models import Heartbeat

pytestmark = pytest.mark.django_db(transaction=True)
WORKER = Heartbeat.Kind.WORKER


@pytest.fixture(autouse=True)
def separate_temp_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def heartbeat_command(*arguments: str) -> tuple[int | str | None, str]:
    output = StringIO()
    try:
        call_command("heartbeat", *arguments, stdout=output)
    except SystemExit as exc:
        return exc.code, output.getvalue()
    return 0, output.getvalue()


def test_worker_has_one_heartbeat_row() -> None:
    record_heartbeat(WORKER, "worker-8000@one", 2)
    first = Heartbeat.objects.get().seen_at
    record_heartbeat(WORKER, "worker-8000@one", 4)
    record_heartbeat(WORKER, "worker-8000@two", 2)

    one, two = Heartbeat.objects.order_by("name")
    assert (one.kind, one.processes, two.processes) == (WORKER, 4, 2)
    assert one.seen_at >= first


def test_expired_heartbeats_are_deleted() -> None:
    record_heartbeat(WORKER, "gone", 1)
    Heartbeat.objects.update(seen_at=clock.database_now() - EXPIRED_AFTER - timedelta(seconds=1))

    record_heartbeat(WORKER, "here", 1)

    assert [one.name for one in Heartbeat.objects.all()] == ["here"]


def test_database_error_does_not_stop_heartbeat_file(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DatabaseError("gone away")

    monkeypatch.setattr(QuerySet, "update", fail)
    SchedulerHeartbeat().record()

    assert heartbeat_path("scheduler").exists()
    assert "heartbeat write failed" in caplog.text


def test_scheduler_row_is_written_less_often_than_file(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = SchedulerHeartbeat()
    scheduler.record()
    assert Heartbeat.objects.get().name == f"scheduler-{settings.PORT}@{socket.gethostname()}"
    Heartbeat.objects.all().delete()
    heartbeat_path("scheduler").unlink()

    scheduler.record()
    assert heartbeat_path("scheduler").exists()
    assert not Heartbeat.objects.exists()

    later = time.monotonic() + INTERVAL_SECONDS
    monkeypatch.setattr(time, "monotonic", lambda: later)
    scheduler.record()
    assert Heartbeat.objects.exists()


def test_only_successful_sweep_records_scheduler_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = beat_scheduler.InProcessScheduler(current_app, lazy=True)
    scheduler.heartbeat = SchedulerHeartbeat()

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
        for name in ("verify", "prune"):
            run(name)
    assert not heartbeat_path("scheduler").exists()
    assert not Heartbeat.objects.exists()

    run("sweep")
    assert heartbeat_path("scheduler").exists()
    assert Heartbeat.objects.get().kind == Heartbeat.Kind.SCHEDULER


def test_command_prints_age_of_heartbeat() -> None:
    assert heartbeat_command("worker") == (
        1,
        f"worker: no heartbeat on this machine for PORT={settings.PORT} ({heartbeat_path('worker')})\n",
    )

    heartbeat_path("worker").touch()
    assert heartbeat_command("worker") == (0, "worker: up, last heartbeat 0 s ago\n")
    assert heartbeat_command("scheduler")[0] == 1

    os.utime(heartbeat_path("worker"), (time.time() - 90,) * 2)
    assert heartbeat_command("worker") == (1, "worker: stale, last heartbeat 90 s ago\n")
    assert heartbeat_command("worker", "--max-age", "120")[0] == 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Start real workers and schedulers on this run's broker and test database, with a short interval."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with ExitStack() as resources:

        def launched(**environment: str) -> "subprocess.Popen[bytes]":
            own = {
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(tmp_path),
                "DATA_DIR": str(tmp_path / "data"),
                "TEST_DATABASE": str(heartbeats.connection.settings_dict["NAME"]),
            }
            process = launch(
                [sys.executable, program],
                log=tmp_path / "log",
                environment={**os.environ, **own, **environment},
            )
            resources.callback(process.wait)
            resources.callback(process.kill)
            return process

        yield launched


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
from worker import heartbeats
from worker.celery import app

heartbeats.INTERVAL_SECONDS = 0.2


@app.task
def long_task():
    folder = Path(os.environ["TMPDIR"])
    (folder / "started").touch()
    while not (folder / "stop").exists():
        time.sleep(0.05)


if os.environ.get("PROGRAM") == "beat":
    app.start(["--quiet", "beat"])
else:
    long_task.delay()
    app.worker_main(["--quiet", "worker", "--hostname", "tested@%h", "--concurrency", "2"])
"""


def test_shutdown_without_the_database_only_warns(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DatabaseError("gone away")

    record_heartbeat(WORKER, "worker@here", 2)
    with monkeypatch.context() as patch:
        patch.setattr(QuerySet, "delete", fail)
        heartbeats.deregister(SimpleNamespace(hostname="worker@here"))

    assert "heartbeat removal failed" in caplog.text
    assert Heartbeat.objects.exists()
    heartbeats.deregister(SimpleNamespace(hostname="worker@here"))
    assert not Heartbeat.objects.exists()


@pytest.mark.process
def test_worker_heartbeat_continues_in_long_task_and_is_removed_on_shutdown(
    worker: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    log = tmp_path / "log"
    wait_until(Heartbeat.objects.exists, "a heartbeat", log=log.read_text)
    first = Heartbeat.objects.get()
    assert first.name == f"tested@{socket.gethostname()}"
    assert first.processes == (2 if settings.REDIS_URL else 1)
    wait_until((tmp_path / "started").exists, "a long task", log=log.read_text)
    until_heartbeat_after(Heartbeat.objects.get().seen_at, log)
    assert heartbeat_path("worker").exists()
    (tmp_path / "stop").touch()

    worker.terminate()
    assert worker.wait(timeout=30) == 0, log.read_text()
    assert not Heartbeat.objects.exists()
    assert not heartbeat_path("worker").exists()


@pytest.mark.process
def test_scheduler_heartbeat_is_removed_on_shutdown(
    start: Callable[..., "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    scheduler = start(PROGRAM="beat")
    wait_until(
        Heartbeat.objects.filter(kind=Heartbeat.Kind.SCHEDULER).exists,
        "a heartbeat",
        log=(tmp_path / "log").read_text,
    )

    scheduler.terminate()

    scheduler.wait(timeout=60)
    assert not Heartbeat.objects.exists()
    assert not heartbeat_path("scheduler").exists()


@pytest.mark.process
@pytest.mark.skipif(missing_reason("Redis") is not None, reason="needs a Redis of its own")
def test_worker_heartbeat_stops_without_broker_and_resumes(
    start: Callable[..., "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    (tmp_path / "stop").touch()
    with Redis() as redis:
        start(REDIS_URL=redis.url)
        wait_until(Heartbeat.objects.exists, "a heartbeat", log=log.read_text)
        until_heartbeat_after(Heartbeat.objects.get().seen_at, log)  # then the worker takes messages
        redis.kill()
        wait_until(
            lambda: "Connection to broker lost" in log.read_text(), "the connection loss", log=log.read_text
        )
        before = Heartbeat.objects.get().seen_at
        redis.start()
        until_heartbeat_after(before, log)
        until_heartbeat_after(Heartbeat.objects.get().seen_at, log)


def until_heartbeat_after(moment: datetime, log: Path) -> None:
    wait_until(
        Heartbeat.objects.filter(seen_at__gt=moment).exists, f"a heartbeat after {moment}", log=log.read_text
    )


@pytest.mark.process
def test_killed_worker_keeps_its_heartbeat_row(worker: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    wait_until(Heartbeat.objects.exists, "a heartbeat", log=(tmp_path / "log").read_text)
    worker.kill()
    worker.wait()

    assert Heartbeat.objects.get().kind == WORKER
