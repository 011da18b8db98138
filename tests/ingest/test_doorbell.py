"""The doorbell with brokers that respond, refuse connections, and hang."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery

from ingest import doorbell

WAIT_SECONDS_MAX = 60.0


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def messages(tmp_path: Path) -> Path:
    """Return the directory of a file broker for this test alone."""
    return tmp_path / "messages"


@pytest.fixture
def broker(messages: Path) -> Celery:
    app = Celery("test", set_as_current=False)
    app.conf.update(
        broker_url="filesystem://",
        broker_transport="worker.file_broker:Transport",
        broker_transport_options={
            "data_folder_in": str(messages),
            "control_folder": str(messages.parent / "control"),
        },
    )
    return app


def rings_in(messages: Path) -> int:
    return len(list(messages.glob("*.msg")))


def test_ring_is_one_message_without_data(broker: Celery, messages: Path) -> None:
    doorbell.Doorbell(broker).ring()

    eventually(lambda: rings_in(messages) == 1)
    (message,) = messages.glob("*.msg")
    assert '"task": "worker.tasks.apply_received"' in message.read_text()


def test_burst_of_rings_is_coalesced(broker: Celery, messages: Path) -> None:
    bell = doorbell.Doorbell(broker)
    for _ in range(1000):
        bell.ring()

    eventually(lambda: rings_in(messages) >= 1)
    time.sleep(3 * doorbell.PAUSE_SECONDS)  # enough for every message of these rings
    assert rings_in(messages) <= 2


def test_rings_without_consumers_are_bounded(
    broker: Celery, messages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell, "QUEUED_RINGS_MAX", 3)
    monkeypatch.setattr(doorbell, "PAUSE_SECONDS", 0.001)
    bell = doorbell.Doorbell(broker)
    for _ in range(50):
        bell.ring()
        eventually(lambda: not bell._requested.is_set())

    assert rings_in(messages) == 3


def test_child_process_rings_after_fork(broker: Celery, messages: Path) -> None:
    bell = doorbell.Doorbell(broker)
    bell.ring()
    eventually(lambda: rings_in(messages) == 1)
    (first,) = messages.glob("*.msg")
    first.unlink()

    child = os.fork()
    if child == 0:
        try:
            bell.ring()
            eventually(lambda: rings_in(messages) == 1)
        finally:
            os._exit(0)
    os.waitpid(child, 0)

    assert rings_in(messages) == 1


def test_dead_doorbell_thread_is_replaced(
    broker: Celery, messages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk() -> None:
        raise OSError(28, "No space left on device")  # a multiprocess metric writes to a file

    bell = doorbell.Doorbell(broker)
    with monkeypatch.context() as patch:
        patch.setattr(doorbell.RING_FAILURES, "inc", full_disk)
        patch.setattr(doorbell, "publish", lambda *_: (_ for _ in ()).throw(ConnectionError("away")))
        patch.setattr(threading, "excepthook", lambda _: None)
        bell.ring()
        eventually(lambda: bell._thread is not None and not bell._thread.is_alive())

    bell.ring()

    eventually(lambda: rings_in(messages) == 1)


@pytest.fixture
def hung_port() -> Iterator[int]:
    """Start a server that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield server.getsockname()[1]


@pytest.fixture
def refusing_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.mark.parametrize("port", ["hung_port", "refusing_port"])
def test_broken_broker_never_blocks_ring(port: str, broker: Celery, request: pytest.FixtureRequest) -> None:
    broker.conf.update(
        broker_url=f"redis://127.0.0.1:{request.getfixturevalue(port)}",
        broker_transport="redis",
        broker_transport_options={},
    )
    bell = doorbell.Doorbell(broker)
    done = threading.Event()

    def ring_many_times() -> None:
        for _ in range(10_000):
            bell.ring()
        done.set()

    threading.Thread(target=ring_many_times, daemon=True).start()
    # One synchronous publish would hang for seconds or for ever, and these are ten thousand.
    assert done.wait(timeout=20)
    assert bell._thread is not None
    assert bell._thread.is_alive()


def test_pending_ring_is_sent_after_broker_recovery(
    broker: Celery, messages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell, "PAUSE_AFTER_FAILURE_SECONDS", 0.05)
    messages.write_text("a file instead of the directory")
    bell = doorbell.Doorbell(broker)
    bell.ring()
    time.sleep(0.2)  # some failures

    messages.unlink()
    eventually(lambda: rings_in(messages) == 1)
