"""Every other load test relies on the simulated bank: it must distinguish correct from incorrect servers.

`FakeServer` is a correct server in memory; each override makes it incorrect in one way.
"""

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from django.core.management import call_command

from devtools import simulator
from devtools.management.commands.simulate_bank import Command
from devtools.simulator import Plan, client, verifier, workload
from ingest.exceptions import InvalidDelivery
from ingest.parsing import parse
from ledger.inn import is_checksum_valid
from ledger.terms import PaymentTerms

Reply = tuple[int, dict[str, Any]]
NO_REPLY: Reply = (0, {})
REFUSED: Reply = (503, {"error": "again"})
FAULTY_NUMBER = 13  # the number of the stored operation that an incorrect server handles incorrectly


class FakeServer:
    """Stores an operation once and posts it immediately; each override replaces the method of its name."""

    def __init__(self, **overrides: Callable[..., Any]) -> None:
        self.lock = threading.Lock()
        self.statuses: dict[str, str] = {}
        self.entries: dict[str, list[dict[str, Any]]] = {}
        self.posts = 0
        for name, override in overrides.items():
            setattr(self, name, partial(override, self))

    def post(self, body: bytes) -> Reply:
        try:
            terms = parse(body)
        except InvalidDelivery as invalid:
            return self.refuse(str(invalid))
        if str(terms.operation_id) in self.statuses:
            return self.acknowledge_again(terms)
        self.statuses[str(terms.operation_id)] = "received"
        (self.apply_faulty if len(self.statuses) == FAULTY_NUMBER else self.apply)(terms)
        return self.acknowledge()

    def acknowledge(self) -> Reply:
        return 200, {"status": "success"}

    def acknowledge_again(self, _terms: PaymentTerms) -> Reply:
        return 200, {"status": "already processed"}

    def refuse(self, error: str) -> Reply:
        return 400, {"error": error}

    def apply(self, terms: PaymentTerms) -> None:
        amount = Decimal(terms.amount_kopecks) / 100
        entry = {"operation_id": str(terms.operation_id), "amount": amount}
        entry |= {
            "seq": len(self.entries.get(terms.inn, [])) + 1,
            "balance_after": self.balance(terms.inn) + amount,
        }
        self.entries.setdefault(terms.inn, []).append(entry)
        self.statuses[str(terms.operation_id)] = "applied"

    def apply_faulty(self, terms: PaymentTerms) -> None:
        self.apply(terms)

    def balance(self, inn: str) -> Decimal:
        return sum((entry["amount"] for entry in self.entries.get(inn, [])), Decimal(0))

    def get(self, path: str, query: dict[str, str]) -> Reply:
        match path.strip("/").split("/"):
            case ["api", "organizations", inn, "balance"] if inn in self.entries:
                return 200, {"balance": self.shown_balance(inn)}
            case ["api", "organizations", inn, "balance", "history"] if inn in self.entries:
                entries = [
                    entry for entry in reversed(self.entries[inn]) if entry["seq"] < int(query["before"])
                ]
                return 200, {"history": [self.shown(entry) for entry in entries[: int(query["limit"])]]}
            case ["api", "operations", operation_id] if operation_id in self.statuses:
                return 200, {"status": self.statuses[operation_id]}
        return 404, {"error": "not found"}

    def shown_balance(self, inn: str) -> object:
        return self.balance(inn)

    def shown(self, entry: dict[str, Any]) -> dict[str, Any]:
        return entry


@contextmanager
def serving(fake_server: FakeServer) -> Iterator[str]:
    """Serve HTTP in the background; yield the URL."""
    encode = msgspec.json.Encoder(decimal_format="number").encode

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        log_request = staticmethod(lambda *_: None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with fake_server.lock:
                fake_server.posts += 1
                self.reply(*fake_server.post(body))

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            with fake_server.lock:
                self.reply(*fake_server.get(parts.path, dict(parse_qsl(parts.query))))

        def reply(self, status: int, content: dict[str, Any]) -> None:
            if (status, content) == NO_REPLY:
                self.close_connection = True
                return
            body = encode(content)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Retry-After", "5")
            self.end_headers()
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # with a shorter queue a new connection waits a second for its SYN retry

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


SHARES = {"duplicates_share": 0.5, "conflicts_share": 0.3, "invalid_share": 0.4}
PLAN = Plan(url="", count=60, organizations=3, **SHARES, seed=328, timeout_seconds=0.3)


class PatientClient(client.Client):
    """A client that no silence of a loaded machine stops: the plan's seconds are for the comparison."""

    def __init__(self, url: str, connections: int, _timeout_seconds: float, *rest: Any) -> None:
        super().__init__(url, connections, 300, *rest)


def simulate(fake_server: FakeServer, plan: Plan = PLAN) -> simulator.Report:
    with serving(fake_server) as url, patch.object(simulator, "Client", PatientClient):
        return simulator.run(replace(plan, url=url))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSE_SECONDS_MAX", 0.01)
    monkeypatch.setattr(verifier, "POLL_SECONDS", 0.01)


# Correct servers


def test_correct_server_is_exact_also_for_a_repeated_seed() -> None:
    server = FakeServer()
    for report in simulate(server), simulate(server):
        assert report.differences == []
        assert (report.organizations, report.organizations_exact) == (3, 3)
        assert report.responses == {"success": 60, "already processed": 30 + 18, "invalid": 24}
        assert report.retries == 0
        assert 0 < report.p50_ms <= report.p99_ms


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 350, "organizations": 1},  # history of several pages
        {"connections": 1, "conflicts_share": 1.0},  # no other thread delivers what a conflict waits for
        {"count": 2, "organizations": 10},
    ],
)
def test_correct_server_is_exact_for_every_plan(changes: dict[str, Any]) -> None:
    assert simulate(FakeServer(), replace(PLAN, **changes)).differences == []


def test_latency_counts_from_the_scheduled_time() -> None:
    assert 100 < simulate(FakeServer(), Plan(url="", count=100, rate=400)).rate < 410
    assert simulate(FakeServer(), Plan(url="", count=200, rate=1_000_000, connections=1)).p99_ms > 20


def test_simulator_waits_for_delayed_posting() -> None:
    waiting: list[PaymentTerms] = []
    asked: list[str] = []

    def get(server: FakeServer, path: str, query: dict[str, str]) -> Reply:
        asked.append(path)
        for terms in waiting if len(asked) == 30 else ():
            FakeServer.apply(server, terms)
        return FakeServer.get(server, path, query)

    later = FakeServer(apply=lambda _, terms: waiting.append(terms), get=get)
    assert simulate(later, replace(PLAN, timeout_seconds=30)).exact


def refuse_some(server: FakeServer, body: bytes) -> Reply:
    return FakeServer.post(server, body) if server.posts % 5 else REFUSED


def lose_some(server: FakeServer, body: bytes) -> Reply:
    reply = FakeServer.post(server, body)
    return reply if server.posts % 5 else NO_REPLY


@pytest.mark.parametrize("post", [refuse_some, lose_some])
def test_refused_or_unanswered_delivery_is_retried(post: Callable[..., Reply]) -> None:
    report = simulate(FakeServer(post=post))
    assert report.exact
    assert report.retries > 20
    assert (report.responses["success"] < 60) == (post is lose_some)


# Servers that are incorrect in one way each


@pytest.mark.parametrize("stores", [False, True])
def test_deliveries_given_up_are_a_difference_whether_posted_or_not(stores: bool) -> None:
    first: list[bytes] = []

    def keep_silent(server: FakeServer, body: bytes) -> Reply:
        first.append(body)
        reply = FakeServer.post(server, body) if stores or body != first[0] else NO_REPLY
        return NO_REPLY if body == first[0] else reply

    plan = replace(PLAN, duplicates_share=0.0, conflicts_share=2.0, invalid_share=0.0, connections=1)
    report = simulate(FakeServer(post=keep_silent), plan)
    given_up = report.responses["given up"]
    assert given_up > 1  # its conflicts are not sent
    assert report.differences == [f"{given_up} deliveries were never acknowledged"]
    assert report.retries == client.ATTEMPTS_MAX - 1


def faulty(action: Callable[[FakeServer, PaymentTerms], object]) -> dict[str, Callable[..., Any]]:
    return {"apply_faulty": action}


SUCCESS: Reply = (200, {"status": "success"})
KNOWN: Reply = (200, {"status": "already processed"})
TWICE = faulty(lambda s, payment: (s.apply(payment), s.apply(payment)))
FAILED = faulty(lambda s, payment: s.statuses.update({str(payment.operation_id): "failed"}))
INCORRECT: list[tuple[dict[str, Callable[..., Any]], str]] = [
    (TWICE, "applied, is in the history 2 times"),
    (TWICE | {"post": lose_some}, "applied, is in the history 2 times"),
    (FAILED, "failed, is in the history 0 times"),
    (faulty(lambda *_: None), "received, is in the history 0 times"),
    (
        faulty(lambda s, payment: s.statuses.pop(str(payment.operation_id))),
        "unknown to the server, is in the history 0",
    ),
    (faulty(lambda s, payment: s.apply(replace(payment, amount_kopecks=1))), ": 0.01 instead of"),
    (
        faulty(lambda s, payment: [s.apply(replace(payment, inn=inn)) for inn in [*s.entries]]),
        "was never delivered",
    ),
    ({"acknowledge_again": lambda s, payment: s.apply(payment) or KNOWN}, "is in the history 2 times"),
    ({"acknowledge": lambda _: KNOWN}, "was answered already processed from the start"),
    ({"acknowledge_again": lambda *_: SUCCESS}, "duplicate delivery"),
    ({"acknowledge_again": lambda *_: SUCCESS}, "conflict delivery"),
    ({"acknowledge_again": lambda *_: (500, {"error": "no idea"})}, 'was answered 500 {"error":"no idea"}'),
    ({"refuse": lambda *_: SUCCESS}, 'was answered 200 {"status":"success"}'),
    ({"shown": lambda _, entry: entry | {"balance_after": 1}}, "do not make 1"),
    (
        {"shown": lambda _, entry: entry | {"seq": entry["seq"] + (entry["seq"] > 4)}},
        "seq 4 is followed by 6",
    ),
    ({"shown_balance": lambda s, inn: s.balance(inn) + Decimal("0.0001")}, "01, the deliveries make"),
    ({"shown_balance": lambda s, inn: str(s.balance(inn))}, '/balance/: 200 {"balance":"'),
    (
        {"get": lambda s, path, _: FakeServer.get(s, path, {"before": "99", "limit": "9"})},
        "that are not before",
    ),
]


@pytest.mark.parametrize(("overrides", "difference"), INCORRECT)
def test_incorrect_server_is_reported(overrides: dict[str, Callable[..., Any]], difference: str) -> None:
    assert difference in "\n".join(simulate(FakeServer(**overrides), replace(PLAN, count=30)).differences)


def test_two_concurrent_successes_are_a_difference() -> None:
    together = threading.Barrier(2, timeout=60)

    def race(server: FakeServer, body: bytes) -> Reply:
        server.lock.release()
        together.wait()
        server.lock.acquire()
        return FakeServer.post(server, body)

    incorrect = FakeServer(post=race, acknowledge_again=lambda *_: SUCCESS)
    found = simulate(incorrect, Plan(url="", count=1, duplicates_share=1.0, connections=2)).differences
    assert ["was answered success 2 times" in difference for difference in found] == [True]


def test_failed_operation_is_not_awaited() -> None:
    assert len(simulate(FakeServer(**FAILED), replace(PLAN, timeout_seconds=60)).differences) == 2


# The workload


def workload_for(**changes: Any) -> list[workload.PlannedDelivery]:
    return workload.build_workload(replace(PLAN, **changes))


def test_seed_determines_everything_but_operation_ids_and_inns() -> None:
    one, other = workload_for(), workload_for()
    assert [d.kind for d in one] == [d.kind for d in other]
    assert [d.operation.amount_kopecks for d in one] == [d.operation.amount_kopecks for d in other]
    assert not {d.operation.operation_id for d in one} & {d.operation.operation_id for d in other}
    assert not {d.operation.inn for d in one} & {d.operation.inn for d in other}
    assert [d.kind for d in one] != [d.kind for d in workload_for(seed=329)]


def test_inns_have_both_lengths_and_valid_checksums() -> None:
    inns = {delivery.operation.inn for delivery in workload_for(count=200, organizations=200)}
    assert sorted(len(inn) for inn in inns if is_checksum_valid(inn)) == [10] * 100 + [12] * 100


def test_duplicates_have_equal_terms_and_conflicts_do_not() -> None:
    first: dict[str, PaymentTerms] = {}
    changed = set()
    for delivery in workload_for(count=2000, invalid_share=0.0):
        terms, operation = parse(delivery.body), delivery.operation
        assert str(terms.operation_id) == operation.operation_id
        if delivery.kind == "conflict":
            changed.add((terms.inn != operation.inn, terms.amount_kopecks != operation.amount_kopecks))
        else:
            assert first.setdefault(operation.operation_id, terms) == terms
            assert (terms.inn, terms.amount_kopecks) == (operation.inn, operation.amount_kopecks)
    assert changed == {(True, False), (False, True)}


def test_every_invalid_body_is_rejected() -> None:
    for body in workload.invalid_bodies(workload_for()[0].operation.fields):
        with pytest.raises(InvalidDelivery):
            parse(body)


@pytest.mark.parametrize("kopecks", [1, 10, 100, 150, 10_000, 14_500_050, 999_999_999_999_999])
def test_every_spelling_is_the_same_amount(kopecks: int) -> None:
    for text in workload.spellings(kopecks):
        assert Decimal(json.loads(text, parse_float=Decimal)) * 100 == kopecks


# The command


def command(*arguments: str) -> tuple[str, str, int]:
    """Return standard output, the last line of standard error, and the exit code."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    try:
        call_command(Command(), "--seed=5", "--count=50", *arguments, stdout=out, stderr=err, no_color=True)
    except SystemExit as exc:
        code = int(exc.code or 0)
    return out.getvalue(), err.getvalue().splitlines()[-1], code


@pytest.mark.parametrize(
    ("overrides", "message", "code"),
    [({}, "10 of 10 organizations", 0), (FAILED, "9 of 10 organizations", 1), (FAILED, "history 0 times", 1)],
)
def test_command_reports_result_and_exit_code(overrides: Any, message: str, code: int) -> None:
    with serving(FakeServer(**overrides)) as url:
        out, err, exit_code = command("--url", url)
    assert message in out
    assert (err, exit_code) == (f"Seed 5: 50 operations to {url}", code)


def test_json_report_is_one_object() -> None:
    with serving(FakeServer()) as url:
        report = json.loads(command("--url", url, "--json")[0])
    assert (report["seed"], report["responses"], report["differences"]) == (5, {"success": 50}, [])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"post": lambda *_: NO_REPLY}, "has stopped responding"),
        ({"get": lambda *_: (404, {})}, "/balance/: 404 {}"),
        (
            {"get": lambda *_: NO_REPLY},
            "/balance/: no response: Remote end closed connection without response",
        ),
    ],
)
def test_unusable_server_is_one_plain_line(overrides: dict[str, Any], message: str) -> None:
    with serving(FakeServer(**overrides)) as url:
        out, err, code = command("--url", url, "--timeout", "0.2")
    assert (out, code) == ("", 1)
    assert message in err


def test_interrupt_ends_with_one_plain_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> simulator.Report:
        raise KeyboardInterrupt

    monkeypatch.setattr(simulator, "run", interrupted)
    assert command() == ("", "Interrupted; nothing was compared.", 130)


UNUSABLE = """
    --url=ftp://bank --url=localhost:8000 --count=0 --count=many --organizations=0 --duplicates=1.5 --seed=-1
    --conflicts=-0.1 --invalid=nan --rate=-1 --rate=inf --timeout=-1 --connections=0 --connections=1000
"""


@pytest.mark.parametrize("option", UNUSABLE.split())
def test_invalid_options_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        Command().run_from_argv(["manage.py", "simulate_bank", option])
    assert left.value.code == 2
    assert option.partition("=")[0] in capsys.readouterr().err.splitlines()[-1]


def test_api_key_is_read_from_stdin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("prihod_0123456789ab_secret\n"))
    parser = Command().create_parser("manage.py", "simulate_bank")
    assert parser.parse_args(["--api-key", "-"]).api_key == "prihod_0123456789ab_secret"


def test_default_url_is_from_the_settings(settings: Any) -> None:
    settings.URL = "http://[::1]:8123"
    assert Command().create_parser("manage.py", "simulate_bank").parse_args([]).url == "http://[::1]:8123"
