"""uvicorn as gunicorn's worker, hardened against slow clients (slowloris), and JSON lines for gunicorn.

uvicorn limits neither the size of a head nor the time of a request. Its protocol class is an argument, and
here a subclass adds the limits, by the methods of asyncio.Protocol and of httptools' parser.

gunicorn loads this module in its main process, whose modules survive a reload. Therefore it imports nothing
else of this project.
"""

import asyncio
import fcntl
import json
import os
import signal
import socket
import struct
import termios
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from ipaddress import ip_address, ip_network
from typing import Any

import structlog
from gunicorn.glogging import Logger
from httptools import HttpParserUpgrade, HttpRequestParser
from structlog.stdlib import ProcessorFormatter
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn_worker import UvicornWorker

REQUEST_READ_SECONDS_MAX = 10.0  # for a complete request, from its first byte or the accepted connection
BODY_BYTES_PER_SECOND_MIN = 16 * 1024  # in each of these times, of a long body, which may take several
LONG_BODY_BYTES_MAX = 17 * 1024 * 1024  # a bank statement in a form; also nginx's limit
LINGER_SECONDS_MAX = 2.0  # for a client to close the connection after a refusal (RFC 9112, 9.6)
SEND_SECONDS_MAX = 10  # for a client to acknowledge what it was sent
SEND_BUFFER_BYTES = 512 * 1024  # larger than any response to an unauthenticated client
UNREAD_BYTES_MAX = 64 * 1024  # of earlier responses, when the next pipelined request begins
URL_BYTES_MAX = 4094
HEADER_BYTES_MAX = 8190
HEADERS_MAX = 100
HEAD_BYTES_MAX = 32 * 1024
CONNECTIONS_MAX = 2000  # per process; below the open files that config/gunicorn.py asks for
CACHED_ADDRESSES_MAX = 128
SHUTDOWN_SECONDS_MAX = 8  # for requests in progress
_BODY_BEGINS = -(1 << 62)  # the count of a head's bytes once it is complete


class _Refused(Exception):
    """Ends the parser's work on a request; the protocol has the status."""


class UpgradeIgnoringParser(HttpRequestParser):
    """Parses a request for another protocol, such as h2c, as one without it, as RFC 9110, 7.8 permits.

    httptools ends such a request before its body. Java's HTTP client sends Upgrade with each first request.
    """

    def __init__(self, protocol: "BoundedProtocol") -> None:
        super().__init__(protocol)
        self._protocol = protocol

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # asyncio passes bytes
        try:
            super().feed_data(data)
        except HttpParserUpgrade as exc:
            self.feed_data(self._protocol.head_without_upgrade() + data[exc.args[0] :])


class BoundedProtocol(HttpToolsProtocol):
    """Closes the connection of a client that is slow, sends too much, or doesn't read its responses."""

    _idle: dict["BoundedProtocol", None] = {}  # without a complete request, since the longest time first

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = UpgradeIgnoringParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._running: RequestResponseCycle | None = None  # self.cycle may be one pipelined behind it
        self._deadline: asyncio.TimerHandle | None = None  # None: no request has begun
        self._head_bytes = 0
        self._refusal = HTTPStatus.BAD_REQUEST
        self._is_refused = False
        self._is_proxy = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)
        connected: socket.socket = transport.get_extra_info("socket")
        if connected.family in {socket.AF_INET, socket.AF_INET6}:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SEND_SECONDS_MAX * 1000)
        proxies = self.config.forwarded_allow_ips or ()
        self._is_proxy = self.client is None or _is_in(self.client[0], tuple(proxies))  # None: a Unix socket
        self._start_reading()
        if len(self.connections) > CONNECTIONS_MAX:  # drop the slowest connection, not the next one
            next(iter(self._idle)).abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_reading()
        self._disconnect()
        super().connection_lost(exc)
        self._idle.pop(self, None)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:  # lingering: an earlier close could reset the unread response
            return
        if self.cycle is None or self.cycle.response_complete:  # or else the next request begins the time
            self._start_reading()
        self._head_bytes += len(data)
        super().data_received(data)
        if self._deadline and self._head_bytes > HEAD_BYTES_MAX and not self._is_refused:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start_reading()  # also of a request behind another one in the same packet

    def head_without_upgrade(self) -> bytes:
        """Return the request line and the headers parsed last, without Upgrade."""
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        return b"%b %b HTTP/1.1\r\n%b\r\n" % (self.parser.get_method(), self.url, b"".join(lines))

    def on_headers_complete(self) -> None:
        if self.parser.get_method() == b"CONNECT":
            raise _Refused
        if self.parser.should_upgrade():  # parsed again
            return
        self._head_bytes = _BODY_BEGINS
        if self._is_proxy and (b"x-forwarded-proto", b"https") in self.headers:
            self.scope["scheme"] = "https"
        if len(self.url) > URL_BYTES_MAX:
            self._refusal = HTTPStatus.REQUEST_URI_TOO_LONG
        elif len(self.headers) > HEADERS_MAX or any(
            len(name) + len(value) > HEADER_BYTES_MAX for name, value in self.headers
        ):
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        else:
            super().on_headers_complete()
            return
        raise _Refused

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            self._stop_reading()
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Start the next pipelined request only if the client reads its responses."""
        if self.pipeline and self._bytes_unread() > UNREAD_BYTES_MAX:
            self.abort()
        elif not self.pipeline and self._is_refused:
            self.transport.close()
        elif not self.pipeline and self in self.connections:
            self._idle.setdefault(self)
        super().on_response_complete()

    def _bytes_unread(self) -> int:
        """Return the bytes that the client has not acknowledged; SIOCOUTQ in tcp(7) are the kernel's."""
        in_kernel: int = struct.unpack(
            "i", fcntl.ioctl(self.transport.get_extra_info("socket"), termios.TIOCOUTQ, bytes(4))
        )[0]
        return in_kernel + self.transport.get_write_buffer_size()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection of a client that only ended its sending, until it has its response."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.disconnected:
            return False
        self.cycle.keep_alive = False
        self.cycle.more_body = False  # a truncated body is answered, too
        self.cycle.message_event.set()
        self._stop_reading()
        return True

    def send_400_response(self, msg: str) -> None:
        """Answer malformed HTTP in JSON; uvicorn calls this for every exception of the parser."""
        self._refuse(self._refusal)

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer `status` and close, or close without it after the answers to the requests in front."""
        self._is_refused = True
        self._stop_reading()
        if self.cycle is not None and not self.cycle.response_complete:
            if not self.cycle.more_body:
                return
            if self.pipeline:
                self.pipeline.popleft()
                return
            self.cycle.disconnected = True  # the application has its head, but answers no more
            self.cycle.message_event.set()
        body = json.dumps({"error": status.phrase.lower()})
        self.transport.write(
            f"HTTP/1.1 {status} {status.phrase}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS_MAX, self.transport.abort)

    def _start_reading(self) -> None:
        if self._deadline is None:
            self._head_bytes = 0
            self._deadline = self.loop.call_later(REQUEST_READ_SECONDS_MAX, self._check_reading, 0)
            self._idle.setdefault(self)

    def _check_reading(self, bytes_before: int) -> None:
        """Close the connection, unless a long body arrives as over a slow line, or waits for its reader."""
        body_bytes = self._head_bytes - _BODY_BEGINS  # more than the maximum if the head is incomplete
        bytes_min = bytes_before + REQUEST_READ_SECONDS_MAX * BODY_BYTES_PER_SECOND_MIN
        if body_bytes > LONG_BODY_BYTES_MAX or (body_bytes < bytes_min and not self.flow.read_paused):
            self.abort()
        else:
            self._deadline = self.loop.call_later(REQUEST_READ_SECONDS_MAX, self._check_reading, body_bytes)

    def _stop_reading(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            self._idle.pop(self, None)

    def abort(self) -> None:
        self._disconnect()
        self.transport.abort()

    def _disconnect(self) -> None:
        """Discard what the application is about to write, which uvloop's closed transport would raise for."""
        if self._running is not None:
            self._running.disconnected = True

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)


@lru_cache(CACHED_ADDRESSES_MAX)
def _is_in(address: str, networks: Sequence[str]) -> bool:
    """Return whether an address is in one of the networks of gunicorn's FORWARDED_ALLOW_IPS."""
    return "*" in networks or any(
        ip_address(address) in ip_network(network, strict=False) for network in networks
    )


class Worker(UvicornWorker):  # type: ignore[misc]  # untyped
    CONFIG_KWARGS = {
        "http": BoundedProtocol,
        "loop": "uvloop",
        "ws": "none",
        "lifespan": "off",
        "access_log": False,
        "server_header": False,
        # The settings say how many proxies there are (core/client_ip.py).
        "proxy_headers": False,
        "timeout_graceful_shutdown": SHUTDOWN_SECONDS_MAX,
        "timeout_notify": 1,
    }

    async def callback_notify(self) -> None:
        """Report to the main process, and end if it is gone: another one may want the port."""
        self.notify()
        if os.getppid() != self.ppid:
            os.kill(os.getpid(), signal.SIGTERM)


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
