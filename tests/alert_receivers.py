"""Recipients of alerts for tests: an HTTP server, a mail server, and a server that never responds."""

import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class WebhookReceiver(ThreadingHTTPServer):
    """Record the JSON of each POST and answer with `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Post)
        self.status = 200
        self.location = ""
        self.authorization: str | None = None
        self.paths: list[str] = []
        self.messages: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook/s3cret?key=value"

    def states(self) -> list[tuple[str, str]]:
        """Return (cause, state) of all alerts received so far."""
        return [(alert["cause"], alert["state"]) for message in self.messages for alert in message["alerts"]]


class _Post(BaseHTTPRequestHandler):
    server: WebhookReceiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.authorization = self.headers["Authorization"]
        self.server.paths.append(self.path)
        self.server.messages.append(json.loads(body))
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()

    do_GET = do_POST  # noqa: N815 as the base class calls it

    def log_message(self, *_: object) -> None:
        pass


class MailServer(socketserver.ThreadingTCPServer):
    """Implement the part of SMTP (RFC 5321) that receives a mail, and record each mail unchanged."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Smtp)
        self.mails: list[str] = []
        self.recipients: list[str] = []


class _Smtp(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self._respond("220 ready")
        while line := self.rfile.readline().decode().strip():
            match line.split(":")[0].upper():
                case "DATA":
                    self._respond("354 continue")
                    self.server.mails.append("".join(iter(self._read_line, ".\r\n")))
                    self._respond("250 stored")
                case "QUIT":
                    self._respond("221 bye")
                    return
                case command:
                    if command == "RCPT TO":
                        self.server.recipients.append(line.split(":")[1])
                    self._respond("250 ok")

    def _read_line(self) -> str:
        return self.rfile.readline().decode()

    def _respond(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@contextmanager
def webhook_receiver(tls: Path | None = None) -> Iterator[WebhookReceiver]:
    """Run a receiver; over TLS with cert.pem and key.pem of the folder `tls`."""
    with WebhookReceiver() as server:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls / "cert.pem", tls / "key.pem")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        with _serving(server):
            yield server


@contextmanager
def mail_server() -> Iterator[MailServer]:
    with MailServer() as server, _serving(server):
        yield server


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()


@contextmanager
def silent_server() -> Iterator[socket.socket]:
    """Listen without responding; the caller may accept connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server
