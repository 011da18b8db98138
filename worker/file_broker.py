"""Kombu's file transport, made safe for several processes.

Kombu writes a message under its final name, so a reader can see it half written, and stops the worker if the
folder is deleted. Here a message is written to a temporary name and renamed, and a missing folder is an empty
queue: the queue proper is the rows of the inbox, and a message only wakes up a worker.
"""

import json
import time
from pathlib import Path
from queue import Empty
from typing import Any
from uuid import uuid4

from kombu.transport import filesystem

POLL_SECONDS_MAX = 0.2


class Channel(filesystem.Channel):
    @property
    def _folder(self) -> Path:
        folder = Path(self.data_folder_in)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _messages(self, queue: str) -> list[Path]:
        """Return the message files of `queue`, oldest first; none if the folder is deleted meanwhile."""
        try:
            return sorted(self._folder.glob(f"*.{queue}.msg"))
        except FileNotFoundError:
            return []

    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override]
        file = self._folder / f"{time.time_ns()}_{uuid4()}.{queue}.msg"
        partial = file.with_suffix(".part")
        partial.write_text(json.dumps(payload))
        partial.rename(file)

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        """Remove and return the oldest message of `queue`. Raises queue.Empty without one."""
        for message in self._messages(queue):
            taken = message.with_suffix(f".taken-{uuid4()}")
            try:
                message.rename(taken)  # only one process succeeds
                text = taken.read_text()
                taken.unlink()
                payload = json.loads(text)
            except (FileNotFoundError, ValueError):  # a power failure can leave an empty file
                continue
            return payload
        raise Empty

    def _size(self, queue: str) -> int:
        return len(self._messages(queue))

    def _purge(self, queue: str) -> int:
        messages = self._messages(queue)
        for message in messages:
            message.unlink(missing_ok=True)
        return len(messages)

    def _queue_bind(self, *args: Any) -> None:
        self.control_folder.parent.mkdir(parents=True, exist_ok=True)
        super()._queue_bind(*args)


class Transport(filesystem.Transport):
    Channel = Channel

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:  # type: ignore[override]
        # The worker checks for shutdown between two calls; Kombu's two seconds would delay Ctrl-C.
        super().drain_events(connection, timeout=min(timeout or POLL_SECONDS_MAX, POLL_SECONDS_MAX))
