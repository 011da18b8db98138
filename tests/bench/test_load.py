"""The open loop keeps to its schedule, and its clock runs while the endpoint is stalled."""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench.load import SentWebhook, open_loop, random_webhooks
from ingest.parsing import parse
from tests.markers import sqlite_run_only

pytestmark = sqlite_run_only

STALL_SECONDS = 0.4
PER_SECOND = 200


@contextmanager
def endpoint(*, stalls_at: int = -1, refuses: bool = False) -> Iterator[tuple[int, list[bytes]]]:
    """Run a server; yield its port and the bodies received. Request number `stalls_at` delays all others."""
    bodies: list[bytes] = []
    one_at_a_time = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body together, as the web process sends them

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with one_at_a_time:
                bodies.append(body)
                if len(bodies) == stalls_at:
                    time.sleep(STALL_SECONDS)
            self.send_response(503 if refuses else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 as the base class has it
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port, bodies
        finally:
            server.shutdown()
            thread.join()


def sent_to(port: int, seconds: float = 1.0) -> list[SentWebhook]:
    return open_loop(port, per_second=PER_SECOND, seconds=seconds, connections=4)


def test_open_loop_sends_each_webhook_once_on_schedule() -> None:
    with endpoint() as (port, bodies):
        sent = sent_to(port)

    assert {each.status for each in sent} == {200}
    assert sorted(json.loads(body)["operation_id"] for body in bodies) == sorted(
        str(s.operation_id) for s in sent
    )
    assert sent[-1].due - sent[0].due == pytest.approx((len(sent) - 1) / PER_SECOND)


def test_stall_is_charged_to_every_request_due_in_it() -> None:
    """Counted from the sending, only four responses would be slow, one for each connection."""
    with endpoint(stalls_at=50) as (port, _):
        sent = sent_to(port)

    due_in_it = STALL_SECONDS * PER_SECOND
    slow = [each.seconds for each in sent if each.seconds > STALL_SECONDS / 4]
    assert len(slow) > due_in_it / 2
    assert max(slow) >= STALL_SECONDS * 0.9


def test_refused_requests_have_their_status() -> None:
    with endpoint(refuses=True) as (port, _):
        assert {each.status for each in sent_to(port, seconds=0.1)} == {503}


def test_unreachable_endpoint_has_status_zero() -> None:
    with endpoint() as (port, _):
        pass

    assert {each.status for each in sent_to(port, seconds=0.1)} == {0}


def test_random_webhooks_are_valid_unique_and_half_hot() -> None:
    sent = list(random_webhooks(random.Random(1), 2_000))

    assert [parse(each.body).amount_kopecks for each in sent] == [each.amount_kopecks for each in sent]
    assert len({each.operation_id for each in sent}) == len(sent)
    assert 900 < sum(each.inn == "7700000000" for each in sent) < 1100
    assert len({each.inn for each in sent}) == 50
