"""Senders of new webhooks, half of them for one organization of many.

The closed loop (wrk) sends the next request when the last one is answered: it finds what a door can take.
The open loop sends by the clock, as a bank does, whatever the answers do, and counts from the moment a
request was due: a stalled door is charged for every request that it kept waiting, also for those that could
not even be sent. To leave those out is called coordinated omission.
"""

import asyncio
import json
import random
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from selectors import SelectSelector
from statistics import quantiles
from typing import Any, NamedTuple, cast
from uuid import UUID

ORGANIZATIONS = 50
HOT_SHARE = 0.5  # of the webhooks, for one of them
DOCUMENT_DATE = "2024-04-27T21:00:00Z"
PATH = "/api/webhook/bank/"
SCRIPT = Path(__file__).with_name("deliveries.lua")
# Many, because each stays with the web process that accepted it: of a few, one process may get nearly all.
CLOSED_LOOP_CONNECTIONS = 128
OPEN_LOOP_CONNECTIONS = 64
LATE_ANSWERS_SECONDS_MAX = 30.0  # after the last request; then an answer counts as missing


class ClosedLoopResult(NamedTuple):
    """What a closed loop heard."""

    ok: int  # answered 200
    sent: int  # at most: the last ones, one for each connection, may still be under way
    seconds: float

    @property
    def ok_per_second(self) -> float:
        return self.ok / self.seconds


def closed_loop(port: int, seconds: int) -> ClosedLoopResult:
    """As fast as the door answers, for so many seconds."""
    duration = ["--duration", f"{seconds}s", "--timeout", "10s"]
    how = ["--threads", "1", "--connections", str(CLOSED_LOOP_CONNECTIONS), *duration]
    what = ["--script", str(SCRIPT), f"http://127.0.0.1:{port}{PATH}"]
    mix = ["--", str(random.getrandbits(48)), str(ORGANIZATIONS), str(HOT_SHARE)]
    said = subprocess.check_output(["wrk", *how, *what, *mix], text=True)
    told = json.loads(said.splitlines()[-1])
    ok = told["answers"] - told["not_200"]
    return ClosedLoopResult(ok, told["answers"] + CLOSED_LOOP_CONNECTIONS, told["seconds"])


class Webhook(NamedTuple):
    """One new operation."""

    operation_id: UUID
    inn: str
    amount_kopecks: int
    document_number: str

    @property
    def body(self) -> bytes:
        amount = f"{self.amount_kopecks // 100}.{self.amount_kopecks % 100:02}"
        return (
            f'{{"operation_id": "{self.operation_id}", "amount": {amount}, "payer_inn": "{self.inn}", '
            f'"document_number": "{self.document_number}", "document_date": "{DOCUMENT_DATE}"}}'
        ).encode()


def random_webhooks(chance: random.Random, count: int) -> Iterator[Webhook]:
    for _ in range(count):
        operation_id = UUID(int=chance.getrandbits(128), version=4)
        organization = 0 if chance.random() < HOT_SHARE else chance.randrange(1, ORGANIZATIONS)
        amount, number = chance.randrange(1_00, 100_000_00), chance.randrange(1, 100_000)
        yield Webhook(operation_id, f"77{organization:08}", amount, f"PAY-{number}")


@dataclass
class SentWebhook:
    """One request of an open loop. `status` is 0 until it is answered, `seconds` count from `due`."""

    operation_id: UUID
    request: bytes
    due: float  # on the monotonic clock
    status: int = 0
    seconds: float = 0.0


def open_loop(
    port: int, *, per_second: float, seconds: float, connections: int = OPEN_LOOP_CONNECTIONS
) -> list[SentWebhook]:
    """Send at even distances, whatever is answered when. Returns when all is answered, or given up."""
    count = round(per_second * seconds)
    prepared = [(each.operation_id, _request(each.body)) for each in random_webhooks(random.Random(), count)]
    # With epoll the loop would sleep in whole milliseconds, and be late by as much as it wants to measure.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(SelectSelector())) as runner:
        return runner.run(_Dispatcher(port, connections).run(prepared, per_second))


def _request(body: bytes) -> bytes:
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class _Dispatcher:
    """Hands out what is due to the lines that are free; what finds none waits here, and its clock runs."""

    def __init__(self, port: int, lines_max: int) -> None:
        self._port = port
        self._lines_max = lines_max
        self._lines: set[_Connection] = set()
        self._free: deque[_Connection] = deque()
        self._waiting: deque[SentWebhook] = deque()
        self._unanswered = 0
        self._all_answered = asyncio.Event()

    async def run(self, prepared: Sequence[tuple[UUID, bytes]], per_second: float) -> list[SentWebhook]:
        begun = time.monotonic()
        sent = [
            SentWebhook(key, request, begun + n / per_second) for n, (key, request) in enumerate(prepared)
        ]
        self._unanswered = len(sent)
        for each in sent:
            await asyncio.sleep(max(0.0, each.due - time.monotonic()))
            self._waiting.append(each)
            self._hand_out()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all_answered.wait(), LATE_ANSWERS_SECONDS_MAX)
        for each in sent:
            each.seconds = each.seconds or time.monotonic() - each.due
        for line in self._lines:
            line.close()
        return sent

    def _hand_out(self) -> None:
        while self._waiting and (line := self._free_line()):
            line.send(self._waiting.popleft())

    def _free_line(self) -> "_Connection | None":
        if len(self._lines) == self._lines_max:
            return self._free.popleft() if self._free else None
        # All lines are used, in turn, so that each web process gets its part. But none is opened before there
        # is something to say: a thread of the web process would wait for it.
        line = _Connection(self)
        self._lines.add(line)
        line.open(self._port)
        return line

    def line_is_free(self, line: "_Connection") -> None:
        self._free.append(line)
        self._hand_out()

    def line_is_lost(self, line: "_Connection") -> None:
        self._lines.discard(line)
        if line in self._free:
            self._free.remove(line)
        self._hand_out()

    def heard(self, sent: SentWebhook, status: int) -> None:
        sent.status, sent.seconds = status, time.monotonic() - sent.due
        self._unanswered -= 1
        if not self._unanswered:
            self._all_answered.set()


class _Connection(asyncio.Protocol):
    """One connection, kept alive, with one request at a time."""

    def __init__(self, clockwork: _Dispatcher) -> None:
        self._clockwork = clockwork
        self._transport: asyncio.Transport | None = None
        self._sent: SentWebhook | None = None
        self._heard = b""

    def open(self, port: int) -> None:
        connecting = asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)
        self._connecting = asyncio.ensure_future(connecting)
        self._connecting.add_done_callback(self._opened)

    def _opened(self, connecting: "asyncio.Task[Any]") -> None:
        if not connecting.cancelled() and connecting.exception():
            self.connection_lost(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._sent:
            self._transport.write(self._sent.request)

    def send(self, sent: SentWebhook) -> None:
        """At once, or when the connection is there."""
        self._sent, self._heard = sent, b""
        if self._transport:
            self._transport.write(sent.request)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        head, end, body = self._heard.partition(b"\r\n\r\n")
        if self._sent and end and len(body) >= _content_length(head):
            sent, self._sent = self._sent, None
            self._clockwork.heard(sent, int(head.split(b" ", 2)[1]))
            if b"connection: close" not in head.lower():  # otherwise connection_lost follows
                self._clockwork.line_is_free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        sent, self._sent = self._sent, None
        if sent:
            self._clockwork.heard(sent, 0)
        self._clockwork.line_is_lost(self)

    def close(self) -> None:
        self._connecting.cancel()
        if self._transport:
            self._transport.close()


def _content_length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


def p99_milliseconds(seconds: Sequence[float]) -> float:
    return 1000 * quantiles(seconds, n=100)[98]
