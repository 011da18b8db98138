"""A gthread worker hardened against slow clients (slowloris).

In gunicorn's own gthread a thread waits for the rest of a request, and the main loop for a client to close
its connection, so that a few slow connections stop everything. Here the main loop reads from all connections
at once, and a thread gets a request only when it is complete.

gunicorn loads this module in its main process, whose modules survive a reload. Therefore it imports nothing
else of this project.
"""

import fcntl
import json
import re
import selectors
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import structlog
from gunicorn.glogging import Logger
from gunicorn.http import errors
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker
from structlog.contextvars import clear_contextvars
from structlog.stdlib import ProcessorFormatter

REQUEST_READ_SECONDS_MAX = 10.0  # for a complete request, from the moment its connection is accepted
LINGER_SECONDS_MAX = 2.0  # for a client to close the connection after the response (RFC 9112, 9.6)
SEND_SECONDS_MAX = 5.0  # for the part of a response that exceeds the kernel's buffer
SEND_BUFFER_BYTES = 512 * 1024  # larger than any response to an unauthenticated client
HEAD_BYTES_MAX = 32 * 1024
BODY_BYTES_MAX = 128 * 1024  # of a buffered body; the admin's forms need more than deliveries
RECEIVE_BYTES = 64 * 1024
UNREAD_BYTES_MAX = 64 * 1024  # of earlier responses; a pipelining client that reads none would block a thread

# These only decide when to call a thread; gunicorn's parser decides what a request is.
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*0*([0-9]{1,19})[ \t]*\r\n", re.IGNORECASE)
_EXPECTS = re.compile(
    rb"\A[^\r\n]* HTTP/1\.1\r\n(?:.*\r\n)?expect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE | re.DOTALL
)
_STATUS: dict[type[Exception], tuple[int, str]] = {
    errors.LimitRequestLine: (414, "URI Too Long"),
    errors.LimitRequestHeaders: (431, "Request Header Fields Too Large"),
    errors.ExpectationFailed: (417, "Expectation Failed"),
}
_SERVER_ERRORS = (errors.ConfigurationProblem, errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)

_request = threading.local()


class JsonLogger(Logger):  # type: ignore[misc]  # untyped
    """Logs gunicorn's lines as JSON, because its main process has no settings.

    In a web process core/observability/logging.py takes over when Django is set up.
    """

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        formatter = ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_logger_name,
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
            processors=[
                ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
        for handler in self.error_log.handlers:
            handler.setFormatter(formatter)


class BufferedUnreader(SocketUnreader):  # type: ignore[misc]  # untyped
    """Buffers a connection's requests. gunicorn's parser reads from the buffer and never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._ended = False
        self.next_request()

    def next_request(self) -> None:
        self._bytes_needed = 0  # unknown until the head is complete

    def receive(self) -> bool:
        """Read the available bytes; return whether the request is complete or can never become so."""
        try:
            received = self.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return self._is_complete()
        except OSError:
            received = b""
        self._ended = not received
        self.buf.seek(0, 2)
        self.buf.write(received)
        return self._ended or self._is_complete()

    def _is_complete(self) -> bool:
        if not self._bytes_needed:
            received = self.buf.getvalue()
            end = received.find(b"\r\n\r\n", 2) + 4  # an empty line before the request is allowed
            if end < 4:
                # A head with bare LFs has no end; it goes to the parser, which rejects it.
                return len(received) > HEAD_BYTES_MAX or received.count(b"\n") != received.count(b"\r\n")
            self._bytes_needed = end + self._body_bytes(received[:end], has_more=len(received) > end)
        return bool(self.buf.getbuffer().nbytes >= self._bytes_needed)

    def _body_bytes(self, head: bytes, *, has_more: bool) -> int:
        """Return the length of the body to buffer; 0 if there is none or it will be rejected."""
        header = _LENGTH.search(head)
        length = int(header[1]) if header else 0
        if length > BODY_BYTES_MAX:
            return 0
        if length and not has_more and _EXPECTS.search(head):
            try:
                self.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            except OSError:
                return 0
        return length

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Signal the end of the input when the parser or the application has consumed the buffer."""
        if self._ended:
            return b""
        if not self._bytes_needed:
            raise errors.LimitRequestHeaders("the head is too long")
        raise TimeoutError("the body is longer than the server buffers")


class BufferedThreadWorker(ThreadWorker):  # type: ignore[misc]  # untyped
    """gunicorn's gthread with threads for complete requests only; measures each request's queueing time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._receiving: dict[TConn, float] = {}  # start times, the oldest first
        self._lingering: dict[TConn, float] = {}

    def enqueue_req(self, conn: TConn) -> None:
        """Buffer the next request of a new or kept-alive connection before it goes to a thread."""
        if not conn.initialized:
            conn.init()
            conn.parser.unreader = BufferedUnreader(conn.sock)
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        elif _bytes_unread(conn.sock) > UNREAD_BYTES_MAX:
            self.nr_conns -= 1
            conn.close()
            return
        conn.sock.settimeout(0)
        conn.parser.unreader.next_request()
        if conn.parser.unreader.receive():
            self._dispatch(conn)
            return
        self._register(conn, self._receiving, self._receive)
        if self.nr_conns >= self.worker_connections:  # drop the slowest connection, not the next one
            self._close(next(iter(self._receiving)), self._receiving)

    def _receive(self, conn: TConn, _: socket.socket) -> None:
        # Another event of the same loop iteration may have closed it.
        if conn in self._receiving and conn.parser.unreader.receive():
            self._unregister(conn, self._receiving)
            self._dispatch(conn)

    def _dispatch(self, conn: TConn) -> None:
        conn.ready_at = time.monotonic()
        super().enqueue_req(conn)

    def handle(self, conn: TConn) -> Any:
        clear_contextvars()  # of this thread's previous request
        _request.queue_seconds = time.monotonic() - conn.ready_at
        return super().handle(conn)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        req._expected_100_continue = False  # noqa: SLF001 it was sent, or the body is already here
        conn.sock.settimeout(SEND_SECONDS_MAX)
        try:
            return super().handle_request(req, conn)
        except TimeoutError:  # the client doesn't read its response, which is not worth a log line
            raise errors.NoMoreData from None

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer malformed HTTP in JSON instead of gunicorn's HTML."""
        if isinstance(exc, errors.ParseException) and not isinstance(exc, _SERVER_ERRORS):
            self.log.warning("Invalid request from ip=%s: %.200s", (addr or [""])[0], exc)
            status, reason = _STATUS.get(type(exc), (400, "Bad Request"))
        else:
            self.log.error("Error handling request", exc_info=exc)
            status, reason = 503, "Service Unavailable"
        body = json.dumps({"error": reason.lower()}).encode()
        head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        try:
            client.settimeout(SEND_SECONDS_MAX)
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        except OSError:
            self.log.debug("Failed to send an error response")

    def finish_request(self, conn: TConn, fs: "Future[Any]") -> None:
        if fs.cancelled() or fs.result():
            super().finish_request(conn, fs)
            return
        try:
            conn.sock.settimeout(0)
            conn.sock.shutdown(socket.SHUT_WR)
            self._register(conn, self._lingering, self._discard_input)
        except (OSError, ValueError):  # already closed
            self.nr_conns -= 1
            conn.close()

    def _discard_input(self, conn: TConn, sock: socket.socket) -> None:
        """Read and drop input until the client closes: an earlier close could reset the unread response."""
        try:
            if sock.recv(RECEIVE_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close(conn, self._lingering)

    def murder_pending(self) -> None:
        """Close connections that exceeded their time; gunicorn calls this in each main loop iteration."""
        read_seconds_max = REQUEST_READ_SECONDS_MAX if self.alive else LINGER_SECONDS_MAX
        for registered, seconds in (
            (self._receiving, read_seconds_max),
            (self._lingering, LINGER_SECONDS_MAX),
        ):
            while registered:
                conn, since = next(iter(registered.items()))
                if time.monotonic() - since < seconds:
                    break
                self._close(conn, registered)

    def _register(
        self, conn: TConn, registered: dict[TConn, float], callback: Callable[[TConn, socket.socket], None]
    ) -> None:
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(callback, conn))
        registered[conn] = time.monotonic()

    def _unregister(self, conn: TConn, registered: dict[TConn, float]) -> None:
        self.poller.unregister(conn.sock)
        del registered[conn]

    def _close(self, conn: TConn, registered: dict[TConn, float]) -> None:
        self._unregister(conn, registered)
        self.nr_conns -= 1
        conn.close()


def _bytes_unread(sock: socket.socket) -> int:
    """Return the bytes that the client has not acknowledged; SIOCOUTQ in tcp(7)."""
    unread: int = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
    return unread


def queue_seconds() -> float:
    """Return how long this thread's request waited for the thread; 0 under any other server."""
    seconds: float = getattr(_request, "queue_seconds", 0.0)
    return seconds
