"""A thread waits neither for a slow body, which is received before, nor for a connection that is lost."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

BUFFERED_BYTES_MAX = 128 * 1024  # of a body; more than any form has
LENGTH_DIGITS_MAX = 20  # int() refuses thousands of digits


class BufferedBodies:
    """Calls `application` with complete bodies. Longer ones than it buffers are served one at a time."""

    def __init__(self, application: Application) -> None:
        self._application = partial(_call, application)
        self._long_body = asyncio.Semaphore(1)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        length = _content_length(scope)
        if not length:  # WSGI applications see no chunked body
            await self._application(scope, receive, send)
        elif length > BUFFERED_BYTES_MAX:
            async with self._long_body:
                await self._application(scope, receive, send)
        else:
            try:
                body = await receive_body(receive, length)
            except ConnectionAbortedError:
                return
            await self._application(scope, _replay(body, receive), send)


async def _call(application: Application, scope: Message, receive: Receive, send: Send) -> None:
    """Call `application`. Once `send` has raised, discard the rest of the response, then raise the same.

    a2wsgi stops taking messages from its thread then, and the thread would wait forever.
    """
    failure: Exception | None = None

    async def send_or_discard(message: Message) -> None:
        nonlocal failure
        if failure is None:
            try:
                await send(message)
            except Exception as exc:  # noqa: BLE001 raised again below
                failure = exc

    await application(scope, receive, send_or_discard)
    if failure is not None:
        raise failure


async def receive_body(receive: Receive, length: int) -> bytes:
    """Return the body; a part of it if the client ends its sending.

    Raise ConnectionAbortedError if the client closes the connection.
    """
    body = bytearray()
    while len(body) < length:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionAbortedError
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return bytes(body)


def _content_length(scope: Message) -> int:
    if scope["type"] != "http":
        return 0
    value = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(value.lstrip(b"0")[:LENGTH_DIGITS_MAX] or b"0") if value.isdigit() else 0


def _replay(body: bytes, receive: Receive) -> Receive:
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
        return next(messages, None) or await receive()

    return replay
