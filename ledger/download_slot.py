"""One long download at a time in each web process: whoever reads it slowly holds one of its few threads."""

import threading
import weakref
from collections.abc import Iterator

_taken = threading.Lock()


class DownloadBusy(Exception):
    """Another long download runs in this process."""


class ExclusiveDownload(Iterator[bytes]):
    """Hands out `chunks`, and meanwhile nobody else in this process does. Raises TurnTaken.

    The turn is over when it is closed, which a response does with what it streams, or when it is forgotten
    because no response came of it.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        if not _taken.acquire(blocking=False):
            raise DownloadBusy
        self._chunks = chunks
        self.close = weakref.finalize(self, _taken.release)

    def __next__(self) -> bytes:
        return next(self._chunks)
