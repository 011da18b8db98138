"""Real receivers for alerts: an HTTP server, a mail server, and a server that never answers."""

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
    """Record each POSTed body and its path; answer with `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Post)
        self.status = 200
        self.location = ""
        self.authorization: str | None = None
        self.paths: list[str] = []
        self.payloads: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook/s3cret?key=value"

    def states(self) -> list[tuple[str, str]]:
        """Return (cause, state) of all notifications received so far."""
        return [
            (alert["cause"], alert["state"]) for payloads in self.payloads for alert in payloads["alerts"]
        ]


class _Post(BaseHTTPRequestHandler):
    server: WebhookReceiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.authorization = self.headers["Authorization"]
        self.server.paths.append(self.path)
        self.server.payloads.append(json.loads(body))
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()

    do_GET = do_POST  # noqa: N815 as the base class calls it

    def log_message(self, *_: object) -> None:
        pass


class MailServer(socketserver.ThreadingTCPServer):
    """Accept as much SMTP (RFC 5321) as sending one mail takes, and record each mail."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Smtp)
        self.mails: list[str] = []
        self.recipients: list[str] = []


class _Smtp(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self._say("220 here")
        while line := self.rfile.readline().decode().strip():
            match line.split(":")[0].upper():
                case "DATA":
                    self._say("354 go on")
                    self.server.mails.append("".join(iter(self._line, ".\r\n")))
                    self._say("250 kept")
                case "QUIT":
                    self._say("221 bye")
                    return
                case command:
                    if command == "RCPT TO":
                        self.server.recipients.append(line.split(":")[1])
                    self._say("250 fine")

    def _line(self) -> str:
        return self.rfile.readline().decode()

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@contextmanager
def webhook_receiver(tls: Path | None = None) -> Iterator[WebhookReceiver]:
    """Serve over TLS if `tls` is a folder with cert.pem and key.pem."""
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
    """Listen without ever answering; the caller may accept connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server
