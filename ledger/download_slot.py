"""One long download at a time in each web process, because a slow client occupies one of its few threads."""

import threading
import weakref
from collections.abc import Iterator

_slot = threading.Lock()


class DownloadBusy(Exception):
    """Another long download is running in this process."""


class ExclusiveDownload(Iterator[bytes]):
    """Iterate over `chunks` while holding the process's download slot. Raise DownloadBusy if it is taken.

    The slot is released by close(), which Django calls at the end of a streaming response, or when the object
    is garbage-collected because no response was sent.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        if not _slot.acquire(blocking=False):
            raise DownloadBusy
        self._chunks = chunks
        self.close = weakref.finalize(self, _slot.release)

    def __next__(self) -> bytes:
        return next(self._chunks)
