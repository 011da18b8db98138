"""The server's protocol class on real sockets, in front of an application of a few lines."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop
from a2wsgi import WSGIMiddleware
from uvicorn import Config
from uvicorn.server import ServerState

from web import uvicorn_worker
from web.buffered_bodies import BUFFERED_BYTES_MAX, BufferedBodies, Message, Receive, Send, receive_body
from web.uvicorn_worker import BoundedProtocol

POST = b"POST /one HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
GET = b"GET /two HTTP/1.1\r\nHost: x\r\n\r\n"
SECONDS_MAX = 10.0
App = Callable[[Message, Receive, Send], Awaitable[None]]


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    """Answer path, scheme and body."""
    length = next((int(value[-9:]) for name, value in scope["headers"] if name == b"content-length"), 0)
    body = await receive_body(receive, length)
    answer = f"{scope['path']} {scope['scheme']} ".encode() + body
    head = {"type": "http.response.start", "status": 200}
    await send({**head, "headers": [(b"content-length", b"%d" % len(answer))]})
    await send({"type": "http.response.body", "body": answer})


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def answer(self) -> tuple[int, bytes]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].split()[0])
        return int(head.split()[1]), await self._reader.readexactly(length)

    async def ask(self, sent: bytes) -> tuple[int, bytes]:
        self.writer.write(sent)
        return await self.answer()

    async def is_closed(self) -> bool:
        try:
            return await self._reader.read(1) == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def serving(
    app: App = echo, proxies: Sequence[str] = (), **options: Any
) -> AsyncIterator[Callable[[], Awaitable[Client]]]:
    """Serve `app`; yield a function that connects."""
    config = Config(
        app,
        http=BoundedProtocol,
        ws="none",
        log_config=None,
        proxy_headers=False,
        forwarded_allow_ips=[*proxies],
        **options,
    )
    config.load()
    state, clients = ServerState(), []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: BoundedProtocol(config, state, {}), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def connect() -> Client:
        clients.append(Client(*await asyncio.open_connection("127.0.0.1", port)))
        return clients[-1]

    try:
        async with asyncio.timeout(SECONDS_MAX):
            yield connect
    finally:
        server.close()
        for client in clients:
            client.writer.close()
            with suppress(ConnectionError):
                await client.writer.wait_closed()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test())


@pytest.mark.parametrize("rest", [b"GARBAGE\r\n\r\n", b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n"])
@pytest.mark.parametrize("ends", [False, True])
def test_malformed_request_behind_a_good_one_does_not_replace_its_answer(rest: bytes, ends: bool) -> None:
    async def test() -> None:
        async with serving() as connect:
            client = await connect()
            client.writer.write(POST + GET + rest)
            if ends:
                client.writer.write_eof()
            assert await client.answer() == (200, b"/one http {}")
            assert await client.answer() == (200, b"/two http ")
            assert await client.is_closed()

    run(test)


def test_malformed_body_behind_a_good_request_does_not_replace_its_answer() -> None:
    async def test() -> None:
        async with serving() as connect:
            client = await connect()
            client.writer.write(
                POST + b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
            )
            assert await client.answer() == (200, b"/one http {}")
            assert await client.is_closed()

    run(test)


def test_malformed_request_is_refused_and_closed() -> None:
    async def test() -> None:
        async with serving() as connect:
            client = await connect()
            assert await client.ask(POST) == (200, b"/one http {}")
            assert await client.ask(b"GARBAGE\r\n\r\n") == (400, b'{"error": "bad request"}')
            assert await client.is_closed()

    run(test)


@pytest.mark.parametrize("begun", [b"GET /x HT", POST[:-1], b"\r\n"])
@pytest.mark.parametrize("before", [b"", GET])
def test_request_that_stays_incomplete_is_closed(
    begun: bytes, before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that begins in the packet of the request before it."""
    monkeypatch.setattr(uvicorn_worker, "REQUEST_READ_SECONDS_MAX", 0.1)

    async def test() -> None:
        async with serving(timeout_keep_alive=0.3 if begun == b"\r\n" and before else 75) as connect:
            client = await connect()
            client.writer.write(before + begun)
            if before:
                await client.answer()
            assert await client.is_closed()

    run(test)


@pytest.mark.parametrize(("parts", "is_slow"), [(8, False), (3, True), (30, True)])
def test_long_body_may_be_slow_but_not_too_slow_or_too_long(
    parts: int, is_slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client sends a part in each third of the time, of eight it has announced, or of more."""
    seconds, part = 0.3, b"x" * 100
    monkeypatch.setattr(uvicorn_worker, "REQUEST_READ_SECONDS_MAX", seconds)
    monkeypatch.setattr(uvicorn_worker, "BODY_BYTES_PER_SECOND_MIN", len(part) / seconds)
    monkeypatch.setattr(uvicorn_worker, "LONG_BODY_BYTES_MAX", 10 * len(part))

    async def test() -> None:
        async with serving() as connect:
            client = await connect()
            length = max(parts, 8) * len(part)
            client.writer.write(b"POST /long HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length)
            for _ in range(parts):
                await asyncio.sleep(seconds / 3)
                if client.writer.is_closing():
                    break
                client.writer.write(part)
            if is_slow:
                assert await client.is_closed()
            else:
                assert await client.answer() == (200, b"/long http " + part * 8)

    run(test)


def test_excess_connections_close_the_one_that_is_idle_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle connection has had its response; a flood of them must not lock new clients out."""
    monkeypatch.setattr(uvicorn_worker, "CONNECTIONS_MAX", 3)

    async def test() -> None:
        async with serving() as connect:
            clients = [await connect() for _ in range(3)]
            for client in [*clients, clients[0]]:
                assert (await client.ask(GET))[0] == 200
            newest = await connect()
            assert (await newest.ask(GET))[0] == 200
            assert await clients[1].is_closed()
            for client in (clients[0], clients[2]):
                assert (await client.ask(GET))[0] == 200

    run(test)


@pytest.mark.parametrize(
    ("proxies", "scheme"),
    [(["127.0.0.1", "::1"], "https"), (["127.0.0.0/8"], "https"), (["*"], "https"), (["10.0.0.1"], "http")],
)
def test_forwarded_scheme_is_believed_from_proxies_only(proxies: list[str], scheme: str) -> None:
    async def test() -> None:
        async with serving(proxies=proxies) as connect:
            client = await connect()
            head = b"GET /x HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: %b\r\n\r\n"
            assert (await client.ask(head % b"https"))[1] == f"/x {scheme} ".encode()
            assert (await client.ask(head % b"http"))[1] == b"/x http "

    run(test)


def test_upgrade_to_http_2_is_declined_without_losing_the_body() -> None:
    """Java's HTTP client asks for it with each first request."""

    async def test() -> None:
        async with serving() as connect:
            client = await connect()
            upgrade = (
                b"POST /one HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            )
            head = upgrade + b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Length: 2\r\n\r\n"
            assert await client.ask(head + b"{}" + GET) == (200, b"/one http {}")
            assert await client.answer() == (200, b"/two http ")
            client.writer.write(head)
            await asyncio.sleep(0.01)
            assert await client.ask(b"{}") == (200, b"/one http {}")
            assert (await client.ask(b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 400

    run(test)


def test_application_is_called_with_complete_bodies_only() -> None:
    """A thread must not wait for a slow body. Longer bodies than are buffered come one at a time."""

    async def test() -> None:
        called: list[str] = []

        async def app(scope: Message, receive: Receive, send: Send) -> None:
            called.append(scope["path"])
            await echo(scope, receive, send)

        async with serving(BufferedBodies(app)) as connect:
            long = b"POST /long HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (BUFFERED_BYTES_MAX + 1)
            slow, *long_ones, fast = [await connect() for _ in range(4)]
            slow.writer.write(POST[:-1])
            for client in long_ones:
                client.writer.write(long)
            assert await fast.ask(POST) == (200, b"/one http {}")
            assert sorted(called) == ["/long", "/one"]
            assert await slow.ask(POST[-1:]) == (200, b"/one http {}")
            for client in long_ones:
                assert (await client.ask(b"x" * (BUFFERED_BYTES_MAX + 1)))[0] == 200

    run(test)


def test_application_is_not_called_for_a_client_that_leaves_within_its_body() -> None:
    async def test() -> None:
        called: list[str] = []

        async def app(scope: Message, receive: Receive, send: Send) -> None:
            called.append(scope["path"])

        async def receive() -> Message:
            return messages.pop(0)

        async def send(message: Message) -> None:
            raise AssertionError(message)

        messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
        scope = {"type": "http", "path": "/x", "headers": [(b"content-length", b"2")]}
        await BufferedBodies(app)(scope, receive, send)
        assert (called, messages) == ([], [])

    run(test)


@pytest.mark.parametrize("length", [b"0" * 7000 + b"2", b"2"])
def test_body_whose_client_ends_its_sending_is_passed_on(length: bytes) -> None:
    async def test() -> None:
        async with serving(BufferedBodies(echo)) as connect:
            client = await connect()
            client.writer.write(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: %b\r\n\r\n{" % length)
            client.writer.write_eof()
            assert await client.answer() == (200, b"/x http {")

    run(test)


def test_lost_connection_discards_the_answer_to_the_first_of_two_requests() -> None:
    """uvicorn marks only the last request, and uvloop raises when more is written for the first one."""

    async def test() -> None:
        has_begun, client_left, is_written = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def app(scope: Message, receive: Receive, send: Send) -> None:
            has_begun.set()
            await client_left.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(20):
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                await asyncio.sleep(0.01)  # the first ones may still reach the kernel
            is_written.set()

        async with serving(app) as connect:
            client = await connect()
            client.writer.write(POST + GET)
            await has_begun.wait()
            client.writer.transport.abort()
            client_left.set()
            await is_written.wait()

    run(test)


def test_thread_is_free_again_after_an_error_of_sending() -> None:
    def wsgi_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "100")])
        return [b"x"] * 100  # more than the messages that a2wsgi queues

    async def broken_send(message: Message) -> None:
        raise ConnectionResetError

    async def test() -> None:
        threads = BufferedBodies(WSGIMiddleware(wsgi_app, workers=1))  # type: ignore[arg-type]
        has_answered = asyncio.Event()

        async def app(scope: Message, receive: Receive, send: Send) -> None:
            await threads(scope, receive, send if scope["path"] == "/two" else broken_send)
            has_answered.set()

        async with serving(app) as connect:
            assert await (await connect()).ask(POST) == (500, b"Internal Server Error")
            assert await (await connect()).ask(GET) == (200, b"x" * 100)
            await has_answered.wait()  # the thread sends an end after the last byte

    run(test)
