"""A few hundred connections that are slow on purpose, and honest requests beside them."""

import http.client
import socket
import time
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.attacker import deliver, honest
from tests.fuzz.corpus import WEBHOOK, request
from tests.harness.launcher_stack import LauncherStack, wait_until
from tests.markers import sqlite_run_only
from web import gunicorn_worker

pytestmark = sqlite_run_only
# Each honest request has this long. gunicorn's own threads kept it waiting for more than 15 s.
HONEST_SECONDS_MAX = 12.0
CONNECTIONS = 300
HEAD = b"POST /api/webhook/bank/ HTTP/1.1\r\nHost: localhost\r\n"
FILE = "/static/admin/js/vendor/jquery/jquery.js"  # as large an answer as a stranger can ask for
FLOODS = {
    "silent": b"",
    "half a head": HEAD[:30],
    "half a body": HEAD + b"Content-Length: 200\r\n\r\n{",
    "half a chunked body": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    "more than is taken": HEAD + b"Content-Length: 900000\r\n\r\n{",
    "a form that never ends": request(
        "POST",
        "/admin/login/",
        b"--x\r\n",
        b"Content-Type: multipart/form-data; boundary=x",
        b"Content-Length: 900000",
        length=False,
    ),
    "waiting to be told to go on": HEAD + b"Expect: 100-continue\r\nContent-Length: 200\r\n\r\n",
    "refused, and not hanging up": b"GET / HTTQ/1.1\r\n\r\n",
    "asking, and not reading": request("GET", FILE) * 10,
    "pipelining, and not reading": request("GET", "/healthz") * 200,
}


WEB_PROCESSES, WEB_THREADS = 2, 4  # the Procfile's
READERS = 2 * WEB_PROCESSES * WEB_THREADS
# Writes a log of some megabytes; prints where its statement is, and a session that may see it.
LONG_STATEMENT = """
from importlib import import_module
from uuid import uuid4
from django.conf import settings
from django.contrib import auth
from django.utils.timezone import now
from ledger.models import *
many = {"balance_kopecks": 20_000, "last_seq": 20_000}
of = {"organization": Organization.objects.create(inn="7719617469", opened_at=now(), **many)}
told = {"amount_kopecks": 1, "document_number": 200 * "x", "document_date": now(), "created_at": now()}
payments = Payment.objects.bulk_create(Payment(operation_id=uuid4(), **of, **told) for _ in range(20_000))
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
def test_a_flood_of_slow_connections_stops_no_honest_request(name: str, stack: LauncherStack) -> None:
    with ExitStack() as resources:
        for _ in range(CONNECTIONS):
            flooding = resources.enter_context(socket.socket())
            flooding.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            flooding.settimeout(HONEST_SECONDS_MAX)
            flooding.connect(("127.0.0.1", stack.port))
            flooding.sendall(FLOODS[name])
        for _ in range(10):
            assert honest_status(stack) == 200


def test_who_sends_no_whole_request_is_hung_up_on(stack: LauncherStack) -> None:
    with socket.create_connection(("127.0.0.1", stack.port), timeout=60) as slow:
        slow.sendall(HEAD)
        begun = time.monotonic()
        assert slow.recv(1) == b""
    assert time.monotonic() - begun >= gunicorn_worker.REQUEST_READ_SECONDS_MAX / 2


def test_a_body_in_pieces_is_taken_in(stack: LauncherStack) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)
    with closing(connection):
        connection.putrequest("POST", WEBHOOK)
        connection.putheader("Content-Length", "2000")
        connection.endheaders()
        for piece in [b"{", *[b" " * 100] * 19, b" " * 98 + b"}"]:
            connection.send(piece)
        refused = connection.getresponse()
        assert (refused.status, refused.read()) == (400, b'{"error":"operation_id: is missing"}')
        connection.request("GET", "/healthz")  # on the same connection
        assert connection.getresponse().status == 200


def test_who_waits_to_be_told_to_go_on_is_told_once(stack: LauncherStack) -> None:
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
        (request("GET", "/api/x/", b"", b"Expect: 200-ok"), 417),
        (request("POST", WEBHOOK, b"", b"Content-Length: abc", length=False), 400),
        (request("POST", WEBHOOK, b"", b"Transfer-Encoding: xchunked"), 400),
    ],
)
def test_what_is_no_http_is_refused_in_json(sent: bytes, status: int, stack: LauncherStack) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)
    with closing(connection):
        connection.connect()
        connection.sock.sendall(sent)
        with http.client.HTTPResponse(connection.sock) as answer:
            answer.begin()
            said = (answer.status, answer.headers["Content-Type"], answer.headers["Connection"])
            assert said == (status, "application/json", "close")
            assert answer.read().startswith(b'{"error": ')


def test_a_client_that_hangs_up_leaves_nothing_behind(stack: LauncherStack) -> None:
    for _ in range(200):
        with socket.create_connection(("127.0.0.1", stack.port)) as gone:
            gone.sendall(FLOODS["half a body"])
    wait_until(lambda: sockets(stack) < 100, stack)


def test_who_reads_long_statements_slowly_keeps_no_delivery_waiting(stack: LauncherStack) -> None:
    told = stack.manage("shell", "--no-imports", "-c", LONG_STATEMENT)
    assert told.returncode == 0, told.stderr
    path, session = told.stdout.split()
    asked = request("GET", path, b"", b"Cookie: sessionid=" + session.encode())
    chance = Random(1)
    with ExitStack() as resources:
        readers = [resources.enter_context(socket.socket()) for _ in range(READERS)]
        for reader in readers:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            reader.settimeout(HONEST_SECONDS_MAX)
            reader.connect(("127.0.0.1", stack.port))
            reader.sendall(asked)
        begun = [readers[0].recv(13)]  # and no more of it
        for _ in range(10):
            assert deliver(stack.port, honest(chance, 100)) == (200, b'{"status":"success"}')
        begun += [reader.recv(13) for reader in readers[1:]]
    assert 1 <= begun.count(b"HTTP/1.1 200 ") <= WEB_PROCESSES
    assert set(begun) <= {b"HTTP/1.1 200 ", b"HTTP/1.1 302 "}


# The last one: what it leaves in the kernel's queue would push out a connection of the next.
def test_more_connections_than_a_process_keeps_push_out_the_slowest(stack: LauncherStack) -> None:
    with ExitStack() as resources:
        for _ in range(2 * 1000 + 200):
            resources.enter_context(socket.create_connection(("127.0.0.1", stack.port), HONEST_SECONDS_MAX))
        for _ in range(10):
            assert honest_status(stack) == 200


def sockets(stack: LauncherStack) -> int:
    """How many the web processes have open."""
    return sum(is_socket(file) for pid in stack.pids("gunicorn") for file in files(pid))


def files(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:  # it has ended since it was found
        return []


def is_socket(file: Path) -> bool:
    try:
        return str(file.readlink()).startswith("socket:")
    except FileNotFoundError:  # closed since it was listed
        return False


def honest_status(stack: LauncherStack) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=HONEST_SECONDS_MAX)
    with closing(connection):
        connection.request("GET", "/healthz")
        return connection.getresponse().status
