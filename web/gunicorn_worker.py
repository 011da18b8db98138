"""gunicorn's threads, which strangers can't hold up.

In gunicorn's own gthread a thread waits for what a client has yet to send, and the main loop for a client
to hang up: a few slow connections stop everything. Here the main loop takes in what arrives, from all
connections at once; a thread gets a request when it is whole, and waits for nobody.

gunicorn loads this in its main process, whose modules a reload keeps as they are: so it imports
nothing of ours.
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

REQUEST_READ_SECONDS_MAX = 10.0  # for a whole request, from the moment its connection is looked at
LINGER_SECONDS_MAX = 2.0  # for a client to hang up, so that it can read the answer (RFC 9112, 9.6)
SEND_SECONDS_MAX = 5.0  # for an answer that the kernel's buffer doesn't hold
SEND_BUFFER_BYTES = 512 * 1024  # asked of the kernel: more than an answer to a stranger has
HEAD_BYTES_MAX = 32 * 1024
BODY_BYTES_MAX = 128 * 1024  # taken in; the forms of the admin need more than the bank's door
RECEIVE_BYTES = 64 * 1024
UNREAD_BYTES_MAX = 64 * 1024  # of earlier answers; who asks on and reads none would hold up a thread

# Only to know when to call a thread; what a request is, gunicorn's parser decides.
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*0*([0-9]{1,19})[ \t]*\r\n", re.IGNORECASE)
_EXPECTS = re.compile(
    rb"\A[^\r\n]* HTTP/1\.1\r\n(?:.*\r\n)?expect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE | re.DOTALL
)
_STATUS: dict[type[Exception], tuple[int, str]] = {
    errors.LimitRequestLine: (414, "URI Too Long"),
    errors.LimitRequestHeaders: (431, "Request Header Fields Too Large"),
    errors.ExpectationFailed: (417, "Expectation Failed"),
}
_OUR_FAULTS = (errors.ConfigurationProblem, errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)

_request = threading.local()


class JsonLogger(Logger):  # type: ignore[misc]  # untyped
    """gunicorn's lines as JSON, always: its main process knows no settings. In a web process core/observability/logging.py
    has the word as soon as Django is set up.
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
    """What of a connection's requests is here. gunicorn's parser reads from it, and never waits."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._ended = False
        self.next_request()

    def next_request(self) -> None:
        self._bytes_needed = 0  # unknown, until the head is here

    def take_in(self) -> bool:
        """Read what is there; whether that is a whole request, or one that never will be."""
        try:
            received = self.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return self._is_whole()
        except OSError:
            received = b""
        self._ended = not received
        self.buf.seek(0, 2)
        self.buf.write(received)
        return self._ended or self._is_whole()

    def _is_whole(self) -> bool:
        if not self._bytes_needed:
            here = self.buf.getvalue()
            end = here.find(b"\r\n\r\n", 2) + 4  # an empty line before the request is allowed
            if end < 4:
                # With a bare LF it has no end, and is refused as it is.
                return len(here) > HEAD_BYTES_MAX or here.count(b"\n") != here.count(b"\r\n")
            self._bytes_needed = end + self._body_bytes_awaited(here[:end], has_more=len(here) > end)
        return bool(self.buf.getbuffer().nbytes >= self._bytes_needed)

    def _body_bytes_awaited(self, head: bytes, *, has_more: bool) -> int:
        given = _LENGTH.search(head)
        length = int(given[1]) if given else 0
        if length > BODY_BYTES_MAX:
            return 0  # to be refused by its length
        if length and not has_more and _EXPECTS.search(head):
            try:
                self.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            except OSError:
                return 0
        return length

    def chunk(self, size_hint: int | None = None) -> bytes:
        """What the parser or the application gets when it has read all that is here."""
        if self._ended:
            return b""
        if not self._bytes_needed:
            raise errors.LimitRequestHeaders("the head is too long")
        raise TimeoutError("the body is longer than what is waited for")


class BufferedThreadWorker(ThreadWorker):  # type: ignore[misc]  # untyped
    """gunicorn's gthread, whose threads get whole requests only, and which knows how long each has waited."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._arriving: dict[TConn, float] = {}  # since when, the longest first
        self._leaving: dict[TConn, float] = {}

    def enqueue_req(self, conn: TConn) -> None:
        """Wait in the main loop until `conn`, which is new or may send another request, has sent it whole."""
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
        if conn.parser.unreader.take_in():
            self._give_to_a_thread(conn)
            return
        self._watch(conn, self._arriving, self._take_in)
        if self.nr_conns >= self.worker_connections:  # rather the slowest than whoever comes next
            self._hang_up(next(iter(self._arriving)), self._arriving)

    def _take_in(self, conn: TConn, _: socket.socket) -> None:
        # Another event of the same turn may have hung up on it.
        if conn in self._arriving and conn.parser.unreader.take_in():
            self._forget(conn, self._arriving)
            self._give_to_a_thread(conn)

    def _give_to_a_thread(self, conn: TConn) -> None:
        conn.ready_at = time.monotonic()
        super().enqueue_req(conn)

    def handle(self, conn: TConn) -> Any:
        clear_contextvars()  # they are those of this thread's last request
        _request.queue_seconds = time.monotonic() - conn.ready_at
        return super().handle(conn)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        req._expected_100_continue = False  # noqa: SLF001 it was told, or there is nothing to wait for
        conn.sock.settimeout(SEND_SECONDS_MAX)
        try:
            return super().handle_request(req, conn)
        except TimeoutError:  # the client doesn't read; no trouble of ours, and no line in the log
            raise errors.NoMoreData from None

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer what is no HTTP in JSON, where gunicorn would in HTML."""
        if isinstance(exc, errors.ParseException) and not isinstance(exc, _OUR_FAULTS):
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
            self.log.debug("Failed to send an error's answer")

    def finish_request(self, conn: TConn, fs: "Future[Any]") -> None:
        if fs.cancelled() or fs.result():
            super().finish_request(conn, fs)
            return
        try:
            conn.sock.settimeout(0)
            conn.sock.shutdown(socket.SHUT_WR)
            self._watch(conn, self._leaving, self._see_off)
        except (OSError, ValueError):  # it has gone already
            self.nr_conns -= 1
            conn.close()

    def _see_off(self, conn: TConn, sock: socket.socket) -> None:
        """Throw away what a client still sends; closing before it hangs up could take the answer from it."""
        try:
            if sock.recv(RECEIVE_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._hang_up(conn, self._leaving)

    def murder_pending(self) -> None:
        """What gunicorn calls in each turn of its main loop: hang up on whoever took too long."""
        seconds_max = REQUEST_READ_SECONDS_MAX if self.alive else LINGER_SECONDS_MAX
        for watched, seconds in ((self._arriving, seconds_max), (self._leaving, LINGER_SECONDS_MAX)):
            while watched:
                conn, since = next(iter(watched.items()))
                if time.monotonic() - since < seconds:
                    break
                self._hang_up(conn, watched)

    def _watch(
        self, conn: TConn, watched: dict[TConn, float], action: Callable[[TConn, socket.socket], None]
    ) -> None:
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(action, conn))
        watched[conn] = time.monotonic()

    def _forget(self, conn: TConn, watched: dict[TConn, float]) -> None:
        self.poller.unregister(conn.sock)
        del watched[conn]

    def _hang_up(self, conn: TConn, watched: dict[TConn, float]) -> None:
        self._forget(conn, watched)
        self.nr_conns -= 1
        conn.close()


def _bytes_unread(sock: socket.socket) -> int:
    """What the client has not yet acknowledged; tcp(7) has it under SIOCOUTQ."""
    unread: int = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
    return unread


def queue_seconds() -> float:
    """How long the request of this thread has waited for it; 0 under any other server."""
    seconds: float = getattr(_request, "queue_seconds", 0.0)
    return seconds
