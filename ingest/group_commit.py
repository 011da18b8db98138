"""Group commit: one thread per process stores all that arrived while its previous transaction committed.

There is no timer: a delivery that arrives alone is stored alone, at once. Under load the batches grow by
themselves, and with them the throughput.
"""

import asyncio
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple

import structlog
from django.conf import settings
from django.db import close_old_connections, connection, reset_queries

from ingest.batch import Stored, store_batch
from ingest.exceptions import Overloaded
from ingest.inbox import Arrival

log = structlog.get_logger(__name__)

BATCH_DELIVERIES_MAX = 500
# Of bodies. Escaped in a statement they may be twice as long, and MariaDB's max_allowed_packet is 16 MiB.
BATCH_BYTES_MAX = 4 * 1024 * 1024
STORE_SECONDS_MAX = 10.0  # from arrival to commit; banks wait 10 to 60 s
# Of a statement, while there are other hosts to turn to. Longer than innodb_lock_wait_timeout.
ANSWER_SECONDS_MAX = 6


class _Waiting(NamedTuple):
    arrival: Arrival
    future: "asyncio.Future[Stored]"

    @property
    def size(self) -> int:
        return len(self.arrival.delivery.body)


class GroupCommit:
    """The writer of one process. Its thread starts with the first delivery."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)  # threads don't survive a fork

    def _reset(self) -> None:
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._deliveries_waiting = self._bytes_waiting = 0
        self._thread: threading.Thread | None = None

    async def store(self, arrival: Arrival) -> Stored:
        """Return what ingest.arrivals.store_arrival returns, after the commit.

        Raise Overloaded at once if too many deliveries wait, TimeoutError after STORE_SECONDS_MAX, or the
        DatabaseError that prevented the commit. After a TimeoutError the delivery may still be stored.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(arrival, loop.create_future())
        self._enqueue(waiting)
        timer = loop.call_later(STORE_SECONDS_MAX, _give_up, waiting.future)  # asyncio.timeout costs more
        try:
            return await waiting.future
        finally:
            timer.cancel()

    def close(self) -> None:
        """Store what waits, and end the thread."""
        if self._thread and self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _enqueue(self, waiting: _Waiting) -> None:
        with self._lock:
            if (
                self._deliveries_waiting >= settings.WAITING_DELIVERIES_MAX
                or self._bytes_waiting + waiting.size > settings.WAITING_BYTES_MAX
            ):
                raise Overloaded
            # Also if the previous one died, say of a full disk under a metric's file.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
                self._thread.start()
            self._deliveries_waiting += 1
            self._bytes_waiting += waiting.size
        self._queue.put(waiting)

    def _run(self) -> None:
        connection.answer_seconds_max = ANSWER_SECONDS_MAX  # type: ignore[attr-defined]  # this thread's own
        try:
            while batch := self._take_batch():
                self._commit(batch)
        finally:
            connection.close()

    def _commit(self, batch: Sequence[_Waiting]) -> None:
        # A request that gave up has been answered 503.
        wanted = [waiting for waiting in batch if not waiting.future.done()]
        try:
            results = _store([waiting.arrival for waiting in wanted])
        finally:
            with self._lock:
                self._deliveries_waiting -= len(batch)
                self._bytes_waiting -= sum(waiting.size for waiting in batch)
        _resolve(wanted, results)

    def _take_batch(self) -> list[_Waiting]:
        """Wait for a delivery, and take all that are there, up to a limit. Return none at the end."""
        batch: list[_Waiting] = []
        size = 0
        waiting = self._queue.get()
        with suppress(Empty):
            while waiting:
                batch.append(waiting)
                size += waiting.size
                if len(batch) >= BATCH_DELIVERIES_MAX or size >= BATCH_BYTES_MAX:
                    return batch
                waiting = self._queue.get_nowait()
            if batch:
                self._queue.put(None)  # the end, after this batch
        return batch


def _give_up(future: "asyncio.Future[Stored]") -> None:
    if not future.done():
        future.set_exception(TimeoutError())


def _store(arrivals: Sequence[Arrival]) -> Sequence[Stored | Exception]:
    """Store a batch on this thread's connection. Never raise: a request waits for each result."""
    if not arrivals:
        return []
    try:
        reset_queries()  # Django logs them with DEBUG=1
        close_old_connections()
        return store_batch(arrivals)
    except Exception as exc:
        log.exception("batch not stored")
        return [exc] * len(arrivals)


def _resolve(batch: Sequence[_Waiting], results: Sequence[Stored | Exception]) -> None:
    """Hand the results over to the event loop, in one call for the whole batch."""
    for loop in {waiting.future.get_loop() for waiting in batch}:
        of_loop = [pair for pair in zip(batch, results, strict=True) if pair[0].future.get_loop() is loop]
        with suppress(RuntimeError):  # the loop is closed, and with it the connections of its requests
            loop.call_soon_threadsafe(_set_results, of_loop)


def _set_results(pairs: Iterable[tuple[_Waiting, Stored | Exception]]) -> None:
    for waiting, result in pairs:
        if waiting.future.done():
            continue
        if isinstance(result, Exception):
            waiting.future.set_exception(result)
        else:
            waiting.future.set_result(result)


group_commit = GroupCommit()
