import shutil
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from threading import Thread
from typing import Any

import pytest
from kombu import Connection

from worker.file_broker import Channel


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[Channel]:
    options = {"data_folder_in": str(tmp_path / "messages"), "control_folder": str(tmp_path / "control")}
    with Connection(
        "filesystem://localhost", transport="worker.file_broker:Transport", transport_options=options
    ) as connection:
        yield connection.default_channel


def take_all(channel: Channel) -> list[Any]:
    taken = []
    while True:
        try:
            taken.append(channel._get("q"))
        except Empty:
            return taken


def test_queues_are_first_in_first_out(channel: Channel) -> None:
    for number in range(5):
        channel._put("q", {"number": number})
    channel._put("other", {})

    assert channel._size("q") == 5
    assert [message["number"] for message in take_all(channel)] == list(range(5))
    assert channel._purge("other") == 1


def test_missing_folder_is_an_empty_queue(channel: Channel) -> None:
    channel._put("q", {})
    shutil.rmtree(channel.data_folder_in)

    assert take_all(channel) == []
    channel._put("q", {"back": True})
    assert take_all(channel) == [{"back": True}]


def test_folder_deleted_during_read_is_an_empty_queue(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Channel, "_folder", Path(channel.data_folder_in) / "deleted")

    assert take_all(channel) == []
    assert channel._size("q") == 0
    assert channel._purge("q") == 0


def test_empty_file_is_skipped(channel: Channel) -> None:
    channel._put("q", {"good": True})
    (Path(channel.data_folder_in) / "0_x.q.msg").touch()

    assert take_all(channel) == [{"good": True}]
    assert list(Path(channel.data_folder_in).iterdir()) == []


def test_message_is_taken_once_and_complete(channel: Channel) -> None:
    """Readers race with a writer of large messages; kombu's own transport returns empty ones here."""
    messages, taken = 200, []
    writer = Thread(
        target=lambda: [channel._put("q", {"n": n, "fill": "x" * 100_000}) for n in range(messages)]
    )

    def read() -> None:
        while writer.is_alive() or channel._size("q"):
            taken.extend(message["n"] for message in take_all(channel))

    readers = [Thread(target=read) for _ in range(3)]
    for thread in (writer, *readers):
        thread.start()
    for thread in (writer, *readers):
        thread.join()

    assert sorted(taken) == list(range(messages))
