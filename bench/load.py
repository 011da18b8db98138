"""Load generators that send new webhooks, half of them for one organization of many.

The closed loop (wrk) sends the next request when the last one is answered: it measures an endpoint's
throughput. The open loop sends on a schedule, as a bank does, independent of the responses, and measures from
the moment a request was due: a stalled endpoint is charged for every request that it delayed, also for those
that could not even be sent. To leave those out would be coordinated omission.
"""

import asyncio
import json
import random
import resource
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
HOT_SHARE = 0.5  # of the webhooks, for one of the organizations
DOCUMENT_DATE = "2024-04-27T21:00:00Z"
PATH = "/api/webhook/bank/"
SCRIPT = Path(__file__).with_name("deliveries.lua")
# Many, because a connection stays with the web process that accepted it: one process may get most of a few.
CLOSED_LOOP_CONNECTIONS = 128
OPEN_LOOP_CONNECTIONS = 64
LATE_RESPONSES_SECONDS_MAX = 30.0  # after the last request; then a response counts as missing


class ClosedLoopResult(NamedTuple):
    ok: int  # answered 200
    sent: int  # an upper bound: the last request of each connection may still be in flight
    seconds: float
    sender_cpu_seconds: float  # of one thread: near `seconds`, the sender is the bottleneck

    @property
    def ok_per_second(self) -> float:
        return self.ok / self.seconds


def closed_loop(port: int, seconds: int, path: str = PATH) -> ClosedLoopResult:
    """Send deliveries, or to another path GET requests, as fast as the responses come."""
    duration = ["--duration", f"{seconds}s", "--timeout", "10s"]
    options = ["--threads", "1", "--connections", str(CLOSED_LOOP_CONNECTIONS), *duration]
    target = ["--script", str(SCRIPT), f"http://127.0.0.1:{port}{path}"]
    mix = ["--", str(random.getrandbits(48)), str(ORGANIZATIONS), str(HOT_SHARE)] if path == PATH else []
    before = _children_cpu_seconds()
    output = subprocess.check_output(["wrk", *options, *target, *mix], text=True)
    cpu_seconds = _children_cpu_seconds() - before
    summary = json.loads(output.splitlines()[-1])
    ok = summary["responses"] - summary["not_200"]
    sent = summary["responses"] + CLOSED_LOOP_CONNECTIONS
    return ClosedLoopResult(ok, sent, summary["seconds"], cpu_seconds)


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Webhook(NamedTuple):
    """A new operation."""

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


def random_webhooks(rng: random.Random, count: int) -> Iterator[Webhook]:
    for _ in range(count):
        operation_id = UUID(int=rng.getrandbits(128), version=4)
        organization = 0 if rng.random() < HOT_SHARE else rng.randrange(1, ORGANIZATIONS)
        amount, number = rng.randrange(1_00, 100_000_00), rng.randrange(1, 100_000)
        yield Webhook(operation_id, f"77{organization:08}", amount, f"PAY-{number}")


@dataclass
class SentWebhook:
    """One request of an open loop. `status` is 0 without a response; `seconds` count from `due`."""

    operation_id: UUID
    request: bytes
    due: float  # on the monotonic clock
    status: int = 0
    seconds: float = 0.0


def open_loop(
    port: int, *, per_second: float, seconds: float, connections: int = OPEN_LOOP_CONNECTIONS
) -> list[SentWebhook]:
    """Send at a fixed rate; return when every request is answered or has timed out."""
    count = round(per_second * seconds)
    prepared = [(each.operation_id, _request(each.body)) for each in random_webhooks(random.Random(), count)]
    # An epoll loop sleeps in whole milliseconds, an error as large as the latencies to be measured.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(SelectSelector())) as runner:
        return runner.run(_Dispatcher(port, connections).run(prepared, per_second))


def _request(body: bytes) -> bytes:
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class _Dispatcher:
    """Assign due requests to idle connections; without one they queue here, with their clock running."""

    def __init__(self, port: int, connections_max: int) -> None:
        self._port = port
        self._connections_max = connections_max
        self._connections: set[_Connection] = set()
        self._idle: deque[_Connection] = deque()
        self._due: deque[SentWebhook] = deque()
        self._unanswered = 0
        self._all_answered = asyncio.Event()

    async def run(self, prepared: Sequence[tuple[UUID, bytes]], per_second: float) -> list[SentWebhook]:
        started = time.monotonic()
        sent = [
            SentWebhook(key, request, started + n / per_second) for n, (key, request) in enumerate(prepared)
        ]
        self._unanswered = len(sent)
        for each in sent:
            await asyncio.sleep(max(0.0, each.due - time.monotonic()))
            self._due.append(each)
            self._dispatch()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all_answered.wait(), LATE_RESPONSES_SECONDS_MAX)
        for each in sent:
            each.seconds = each.seconds or time.monotonic() - each.due
        for connection in self._connections:
            connection.close()
        return sent

    def _dispatch(self) -> None:
        while self._due and (connection := self._idle_connection()):
            connection.send(self._due.popleft())

    def _idle_connection(self) -> "_Connection | None":
        if len(self._connections) == self._connections_max:
            return self._idle.popleft() if self._idle else None
        # All connections are used in rotation, so that each web process gets its share. None is opened before
        # it has a request to send: a thread of the web process would wait for that request.
        connection = _Connection(self)
        self._connections.add(connection)
        connection.open(self._port)
        return connection

    def on_idle(self, connection: "_Connection") -> None:
        self._idle.append(connection)
        self._dispatch()

    def on_lost(self, connection: "_Connection") -> None:
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._dispatch()

    def on_response(self, sent: SentWebhook, status: int) -> None:
        sent.status, sent.seconds = status, time.monotonic() - sent.due
        self._unanswered -= 1
        if not self._unanswered:
            self._all_answered.set()


class _Connection(asyncio.Protocol):
    """A keep-alive connection with one request at a time."""

    def __init__(self, dispatcher: _Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._transport: asyncio.Transport | None = None
        self._sent: SentWebhook | None = None
        self._received = b""

    def open(self, port: int) -> None:
        connecting = asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)
        self._connecting = asyncio.ensure_future(connecting)
        self._connecting.add_done_callback(self._connected)

    def _connected(self, connecting: "asyncio.Task[Any]") -> None:
        if not connecting.cancelled() and connecting.exception():
            self.connection_lost(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._sent:
            self._transport.write(self._sent.request)

    def send(self, sent: SentWebhook) -> None:
        """Send at once, or as soon as the connection is established."""
        self._sent, self._received = sent, b""
        if self._transport:
            self._transport.write(sent.request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if self._sent and end and len(body) >= _content_length(head):
            sent, self._sent = self._sent, None
            self._dispatcher.on_response(sent, int(head.split(b" ", 2)[1]))
            if b"connection: close" not in head.lower():  # otherwise connection_lost follows
                self._dispatcher.on_idle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        sent, self._sent = self._sent, None
        if sent:
            self._dispatcher.on_response(sent, 0)
        self._dispatcher.on_lost(self)

    def close(self) -> None:
        self._connecting.cancel()
        if self._transport:
            self._transport.close()


def _content_length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


def p99_milliseconds(seconds: Sequence[float]) -> float:
    return 1000 * quantiles(seconds, n=100)[98]
