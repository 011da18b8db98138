"""Hundreds of deliberately slow connections (slowloris) must not delay valid requests."""

import http.client
import resource
import socket
import time
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.attacker import deliver, valid_body
from tests.fuzz.corpus import WEBHOOK, request
from tests.harness.launcher_stack import LauncherStack
from tests.markers import sqlite_run_only
from web import uvicorn_worker

pytestmark = [sqlite_run_only, pytest.mark.process]
# Limit for a valid request. Stock gthread workers delayed it by more than 15 s.
VALID_REQUEST_SECONDS_MAX = 12.0
CONNECTIONS = 300
HEAD = b"POST /api/webhook/bank/ HTTP/1.1\r\nHost: localhost\r\n"
FILE = "/static/admin/js/vendor/jquery/jquery.js"  # the largest response available without login
FLOODS = {
    "silent": b"",
    "half a head": HEAD[:30],
    "half a body": HEAD + b"Content-Length: 200\r\n\r\n{",
    "half a chunked body": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    "more than the body limit": HEAD + b"Content-Length: 900000\r\n\r\n{",
    "a form that never ends": request(
        "POST",
        "/admin/login/",
        b"--x\r\n",
        b"Content-Type: multipart/form-data; boundary=x",
        b"Content-Length: 900000",
        length=False,
    ),
    "waiting for 100 Continue": HEAD + b"Expect: 100-continue\r\nContent-Length: 200\r\n\r\n",
    "refused, and not closing": b"GET / HTTQ/1.1\r\n\r\n",
    "requesting, and not reading": request("GET", FILE) * 10,
    "pipelining, and not reading": request("GET", "/healthz") * 200,
}


WEB_PROCESSES, WEB_THREADS = 2, 4  # as in the Procfile
READERS = 2 * WEB_PROCESSES * WEB_THREADS
# Creates a statement of some megabytes; prints its path and a session that may download it.
LONG_STATEMENT = """
from importlib import import_module
from uuid import uuid4
from django.conf import settings
from django.contrib import auth
from django.utils.timezone import now
from ledger.models import *
many = {"balance_kopecks": 20_000, "last_seq": 20_000}
of = {"organization": Organization.objects.create(inn="7719617469", opened_at=now(), **many)}
terms = {"amount_kopecks": 1, "document_number": 200 * "x", "document_date": now(), "created_at": now()}
payments = Payment.objects.bulk_create(Payment(operation_id=uuid4(), **of, **terms) for _ in range(20_000))
BalanceLog.objects.bulk_create(
    BalanceLog(**of, seq=seq, payment=payment, amount_kopecks=1, balance_after_kopecks=seq, created_at=now())
    for seq, payment in enumerate(payments, 1)
)
person = auth.get_user_model().objects.create_superuser("slow")
session = import_module(settings.SESSION_ENGINE).SessionStore()
session[auth.SESSION_KEY], session[auth.BACKEND_SESSION_KEY] = person.pk, settings.AUTHENTICATION_BACKENDS[-1]
session[auth.HASH_SESSION_KEY] = person.get_session_auth_hash()
session.create()
print(f"/admin/ledger/organization/{of['organization'].pk}/statement.csv", session.session_key)
"""


@pytest.mark.parametrize("name", FLOODS)
def test_slow_connections_do_not_block_valid_requests(name: str, stack: LauncherStack) -> None:
    with ExitStack() as resources:
        for _ in range(CONNECTIONS):
            flooding = resources.enter_context(socket.socket())
            flooding.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            flooding.settimeout(VALID_REQUEST_SECONDS_MAX)
            flooding.connect(("127.0.0.1", stack.port))
            flooding.sendall(FLOODS[name])
        for _ in range(10):
            assert healthz_status(stack) == 200


def test_incomplete_request_is_closed_after_the_read_timeout(stack: LauncherStack) -> None:
    with socket.create_connection(("127.0.0.1", stack.port), timeout=60) as slow:
        slow.sendall(HEAD)
        start = time.monotonic()
        assert slow.recv(1) == b""
    assert time.monotonic() - start >= uvicorn_worker.REQUEST_READ_SECONDS_MAX / 2


def test_body_in_small_chunks_is_accepted(stack: LauncherStack) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)
    with closing(connection):
        connection.putrequest("POST", WEBHOOK)
        connection.putheader("Content-Length", "2000")
        connection.endheaders()
        for piece in [b"{", *[b" " * 100] * 19, b" " * 98 + b"}"]:
            connection.send(piece)
        response = connection.getresponse()
        assert (response.status, response.read()) == (400, b'{"error":"operation_id: is missing"}')
        connection.request("GET", "/healthz")  # on the same connection
        assert connection.getresponse().status == 200


def test_expect_100_continue_is_answered_once(stack: LauncherStack) -> None:
    head, body = request("POST", WEBHOOK, b"{}", b"Expect: 100-continue").split(b"\r\n\r\n")
    with socket.create_connection(("127.0.0.1", stack.port), timeout=30) as polite:
        polite.sendall(head + b"\r\n\r\n")
        assert polite.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        polite.sendall(body)
        assert polite.recv(65536).startswith(b"HTTP/1.1 400 Bad Request")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /api/ HTTQ/1.1\r\n\r\n", 400),
        (request("GET", "/api/" + "x" * 5000), 414),
        (request("GET", "/api/x/", b"", b"X: " + b"a" * 9000), 431),
        (request("GET", "/api/x/", b"", b"X: " + b"a" * 100_000), 431),
        (request("POST", WEBHOOK, b"", b"Content-Length: abc", length=False), 400),
        (request("POST", WEBHOOK, b"", b"Transfer-Encoding: xchunked"), 400),
    ],
)
def test_malformed_http_is_refused_in_json(sent: bytes, status: int, stack: LauncherStack) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)
    with closing(connection):
        connection.connect()
        connection.sock.sendall(sent)
        with http.client.HTTPResponse(connection.sock) as response:
            response.begin()
            head = (response.status, response.headers["Content-Type"], response.headers["Connection"])
            assert head == (status, "application/json", "close")
            assert response.read().startswith(b'{"error": ')


def test_aborted_connections_leave_no_sockets(stack: LauncherStack) -> None:
    for _ in range(200):
        with socket.create_connection(("127.0.0.1", stack.port)) as aborted:
            aborted.sendall(FLOODS["half a body"])
    stack.wait_until(lambda: sockets(stack) < 100)


def test_slow_statement_downloads_do_not_block_deliveries(stack: LauncherStack) -> None:
    done = stack.manage("shell", "--no-imports", "-c", LONG_STATEMENT)
    assert done.returncode == 0, done.stderr
    path, session = done.stdout.split()
    download = request("GET", path, b"", b"Cookie: sessionid=" + session.encode())
    rng = Random(1)
    with ExitStack() as resources:
        readers = [resources.enter_context(socket.socket()) for _ in range(READERS)]
        for reader in readers:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            reader.settimeout(VALID_REQUEST_SECONDS_MAX)
            reader.connect(("127.0.0.1", stack.port))
            reader.sendall(download)
        status_lines = [readers[0].recv(13)]  # and read no more
        for _ in range(10):
            assert deliver(stack.port, valid_body(rng, 100)) == (200, b'{"status":"success"}')
        status_lines += [reader.recv(13) for reader in readers[1:]]
    assert 1 <= status_lines.count(b"HTTP/1.1 200 ") <= WEB_PROCESSES
    assert set(status_lines) <= {b"HTTP/1.1 200 ", b"HTTP/1.1 302 "}


# Must be last: connections left in the kernel's queue would evict one of the next test.
def test_excess_connections_evict_the_slowest(stack: LauncherStack) -> None:
    connections = WEB_PROCESSES * uvicorn_worker.CONNECTIONS_MAX + 200
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2 * connections, hard), hard))
    with ExitStack() as resources:
        for _ in range(connections):
            resources.enter_context(
                socket.create_connection(("127.0.0.1", stack.port), VALID_REQUEST_SECONDS_MAX)
            )
        for _ in range(10):
            assert healthz_status(stack) == 200


def sockets(stack: LauncherStack) -> int:
    """Return the number of sockets that the web processes have open."""
    return sum(is_socket(file) for pid in stack.pids("gunicorn") for file in files(pid))


def files(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:  # it has ended
        return []


def is_socket(file: Path) -> bool:
    try:
        return str(file.readlink()).startswith("socket:")
    except FileNotFoundError:  # it is closed
        return False


def healthz_status(stack: LauncherStack) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=VALID_REQUEST_SECONDS_MAX)
    with closing(connection):
        connection.request("GET", "/healthz")
        return connection.getresponse().status
