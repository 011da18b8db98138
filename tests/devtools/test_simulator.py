"""The fake bank is believed by every other load test, so here it has to tell good servers from bad ones.

`StandIn` plays a correct server in memory, without a database; whatever else it is given is wrong with it.
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
LUCKY = 13  # the operation that a faulty stand-in is faulty about, counted as they are stored


class StandIn:
    """Stores an operation once, and posts it at once; each override stands in for the method of its name."""

    def __init__(self, **overrides: Callable[..., Any]) -> None:
        self.lock = threading.Lock()
        self.statuses: dict[str, str] = {}
        self.lines: dict[str, list[dict[str, Any]]] = {}
        self.posts = 0
        for name, override in overrides.items():
            setattr(self, name, partial(override, self))

    def post(self, body: bytes) -> Reply:
        try:
            terms = parse(body)
        except InvalidDelivery as invalid:
            return self.refuse(str(invalid))
        if str(terms.operation_id) in self.statuses:
            return self.repeat(terms)
        self.statuses[str(terms.operation_id)] = "received"
        (self.apply_lucky if len(self.statuses) == LUCKY else self.apply)(terms)
        return self.welcome()

    def welcome(self) -> Reply:
        return 200, {"status": "success"}

    def repeat(self, _terms: PaymentTerms) -> Reply:
        return 200, {"status": "already processed"}

    def refuse(self, error: str) -> Reply:
        return 400, {"error": error}

    def apply(self, terms: PaymentTerms) -> None:
        amount = Decimal(terms.amount_kopecks) / 100
        line = {"operation_id": str(terms.operation_id), "amount": amount}
        line |= {
            "seq": len(self.lines.get(terms.inn, [])) + 1,
            "balance_after": self.balance(terms.inn) + amount,
        }
        self.lines.setdefault(terms.inn, []).append(line)
        self.statuses[str(terms.operation_id)] = "applied"

    def apply_lucky(self, terms: PaymentTerms) -> None:
        self.apply(terms)

    def balance(self, inn: str) -> Decimal:
        return sum((line["amount"] for line in self.lines.get(inn, [])), Decimal(0))

    def get(self, path: str, query: dict[str, str]) -> Reply:
        match path.strip("/").split("/"):
            case ["api", "organizations", inn, "balance"] if inn in self.lines:
                return 200, {"balance": self.shown_balance(inn)}
            case ["api", "organizations", inn, "balance", "history"] if inn in self.lines:
                lines = [line for line in reversed(self.lines[inn]) if line["seq"] < int(query["before"])]
                return 200, {"history": [self.shown(line) for line in lines[: int(query["limit"])]]}
            case ["api", "operations", operation_id] if operation_id in self.statuses:
                return 200, {"status": self.statuses[operation_id]}
        return 404, {"error": "not found"}

    def shown_balance(self, inn: str) -> object:
        return self.balance(inn)

    def shown(self, line: dict[str, Any]) -> dict[str, Any]:
        return line


@contextmanager
def serving(stand_in: StandIn) -> Iterator[str]:
    """The address under which the stand-in answers meanwhile."""
    encode = msgspec.json.Encoder(decimal_format="number").encode

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        log_request = staticmethod(lambda *_: None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with stand_in.lock:
                stand_in.posts += 1
                self.reply(*stand_in.post(body))

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            with stand_in.lock:
                self.reply(*stand_in.get(parts.path, dict(parse_qsl(parts.query))))

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
        request_queue_size = 128  # with too short a queue a new connection waits a second for its second try

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


SHARES = {"duplicates_share": 0.5, "conflicts_share": 0.3, "invalid_share": 0.4}
PLAN = Plan(url="", count=60, organizations=3, **SHARES, seed=328, timeout_seconds=0.3)


def simulate(stand_in: StandIn, plan: Plan = PLAN) -> simulator.Report:
    with serving(stand_in) as url:
        return simulator.run(replace(plan, url=url))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSE_SECONDS_MAX", 0.01)
    monkeypatch.setattr(verifier, "POLL_SECONDS", 0.01)


# Correct servers


def test_a_correct_server_is_exact_and_the_same_seed_can_be_sent_to_it_again() -> None:
    server = StandIn()
    for report in simulate(server), simulate(server):
        assert report.differences == []
        assert (report.organizations, report.organizations_exact) == (3, 3)
        assert report.answers == {"success": 60, "already processed": 30 + 18, "invalid": 24}
        assert report.sent_again == 0
        assert 0 < report.p50_ms <= report.p99_ms


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 350, "organizations": 1},  # history of several pages
        {"connections": 1, "conflicts_share": 1.0},  # nobody else delivers what a conflict waits for
        {"count": 2, "organizations": 10},
    ],
)
def test_a_correct_server_is_exact_whatever_the_plan(changes: dict[str, Any]) -> None:
    assert simulate(StandIn(), replace(PLAN, **changes)).differences == []


def test_a_rate_is_kept_and_latency_counts_from_when_a_delivery_was_due() -> None:
    assert 100 < simulate(StandIn(), Plan(url="", count=100, rate=400)).rate < 410
    assert simulate(StandIn(), Plan(url="", count=200, rate=1_000_000, connections=1)).p99_ms > 20


def test_a_server_that_posts_later_is_waited_for() -> None:
    waiting: list[PaymentTerms] = []
    asked: list[str] = []

    def get(server: StandIn, path: str, query: dict[str, str]) -> Reply:
        asked.append(path)
        for terms in waiting if len(asked) == 30 else ():
            StandIn.apply(server, terms)
        return StandIn.get(server, path, query)

    later = StandIn(apply=lambda _, terms: waiting.append(terms), get=get)
    assert simulate(later, replace(PLAN, timeout_seconds=30)).exact


def refuse_some(server: StandIn, body: bytes) -> Reply:
    return StandIn.post(server, body) if server.posts % 5 else REFUSED


def lose_some(server: StandIn, body: bytes) -> Reply:
    reply = StandIn.post(server, body)
    return reply if server.posts % 5 else NO_REPLY


@pytest.mark.parametrize("post", [refuse_some, lose_some])
def test_what_was_refused_or_got_no_answer_is_sent_again(post: Callable[..., Reply]) -> None:
    report = simulate(StandIn(post=post))
    assert report.exact
    assert report.sent_again > 20
    assert (report.answers["success"] < 60) == (post is lose_some)


# Servers that are wrong, each in one way


@pytest.mark.parametrize("stores", [False, True])
def test_deliveries_given_up_are_a_difference_but_their_operation_may_be_posted_or_not(stores: bool) -> None:
    first: list[bytes] = []

    def keep_silent(server: StandIn, body: bytes) -> Reply:
        first.append(body)
        reply = StandIn.post(server, body) if stores or body != first[0] else NO_REPLY
        return NO_REPLY if body == first[0] else reply

    plan = replace(PLAN, duplicates_share=0.0, conflicts_share=2.0, invalid_share=0.0, connections=1)
    report = simulate(StandIn(post=keep_silent), plan)
    given_up = report.answers["given up"]
    assert given_up > 1  # its conflicts are not even sent
    assert report.differences == [f"{given_up} deliveries were never acknowledged"]
    assert report.sent_again == client.ATTEMPTS_MAX - 1


def lucky(action: Callable[[StandIn, PaymentTerms], object]) -> dict[str, Callable[..., Any]]:
    return {"apply_lucky": action}


SUCCESS: Reply = (200, {"status": "success"})
KNOWN: Reply = (200, {"status": "already processed"})
TWICE = lucky(lambda s, told: (s.apply(told), s.apply(told)))
FAILED = lucky(lambda s, told: s.statuses.update({str(told.operation_id): "failed"}))
WRONG: list[tuple[dict[str, Callable[..., Any]], str]] = [
    (TWICE, "applied, is in the history 2 times"),
    (TWICE | {"post": lose_some}, "applied, is in the history 2 times"),
    (FAILED, "failed, is in the history 0 times"),
    (lucky(lambda *_: None), "received, is in the history 0 times"),
    (
        lucky(lambda s, told: s.statuses.pop(str(told.operation_id))),
        "unknown to the server, is in the history 0",
    ),
    (lucky(lambda s, told: s.apply(replace(told, amount_kopecks=1))), ": 0.01 instead of"),
    (lucky(lambda s, told: [s.apply(replace(told, inn=inn)) for inn in [*s.lines]]), "was never delivered"),
    ({"repeat": lambda s, told: s.apply(told) or KNOWN}, "is in the history 2 times"),
    ({"welcome": lambda _: KNOWN}, "was answered already processed from the start"),
    ({"repeat": lambda *_: SUCCESS}, "duplicate delivery"),
    ({"repeat": lambda *_: SUCCESS}, "conflict delivery"),
    ({"repeat": lambda *_: (500, {"error": "no idea"})}, 'was answered 500 {"error":"no idea"}'),
    ({"refuse": lambda *_: SUCCESS}, 'was answered 200 {"status":"success"}'),
    ({"shown": lambda _, line: line | {"balance_after": 1}}, "do not make 1"),
    ({"shown": lambda _, line: line | {"seq": line["seq"] + (line["seq"] > 4)}}, "seq 4 is followed by 6"),
    ({"shown_balance": lambda s, inn: s.balance(inn) + Decimal("0.0001")}, "01, the deliveries make"),
    ({"shown_balance": lambda s, inn: str(s.balance(inn))}, '/balance/: 200 {"balance":"'),
    ({"get": lambda s, path, _: StandIn.get(s, path, {"before": "99", "limit": "9"})}, "that are not before"),
]


@pytest.mark.parametrize(("wrong", "named"), WRONG)
def test_a_wrong_server_is_told_what_is_wrong(wrong: dict[str, Callable[..., Any]], named: str) -> None:
    assert named in "\n".join(simulate(StandIn(**wrong)).differences)


def test_two_successes_at_the_same_time_are_one_too_many() -> None:
    together = threading.Barrier(2, timeout=60)

    def race(server: StandIn, body: bytes) -> Reply:
        server.lock.release()
        together.wait()
        server.lock.acquire()
        return StandIn.post(server, body)

    wrong = StandIn(post=race, repeat=lambda *_: SUCCESS)
    found = simulate(wrong, Plan(url="", count=1, duplicates_share=1.0, connections=2)).differences
    assert ["was answered success 2 times" in difference for difference in found] == [True]


def test_a_failed_operation_is_not_waited_for() -> None:
    assert len(simulate(StandIn(**FAILED), replace(PLAN, timeout_seconds=60)).differences) == 2


# The deck


def deck(**changes: Any) -> list[workload.PlannedDelivery]:
    return workload.build_workload(replace(PLAN, **changes))


def test_a_seed_repeats_everything_but_operation_ids_and_inns() -> None:
    one, other = deck(), deck()
    assert [d.kind for d in one] == [d.kind for d in other]
    assert [d.operation.amount_kopecks for d in one] == [d.operation.amount_kopecks for d in other]
    assert not {d.operation.operation_id for d in one} & {d.operation.operation_id for d in other}
    assert not {d.operation.inn for d in one} & {d.operation.inn for d in other}
    assert [d.kind for d in one] != [d.kind for d in deck(seed=329)]


def test_inns_are_of_both_lengths_and_pass_the_checksum() -> None:
    inns = {delivery.operation.inn for delivery in deck(count=200, organizations=200)}
    assert sorted(len(inn) for inn in inns if is_checksum_valid(inn)) == [10] * 100 + [12] * 100


def test_duplicates_mean_the_same_as_their_first_and_conflicts_do_not() -> None:
    first: dict[str, PaymentTerms] = {}
    changed = set()
    for delivery in deck(count=2000, invalid_share=0.0):
        terms, operation = parse(delivery.body), delivery.operation
        assert str(terms.operation_id) == operation.operation_id
        if delivery.kind == "conflict":
            changed.add((terms.inn != operation.inn, terms.amount_kopecks != operation.amount_kopecks))
        else:
            assert first.setdefault(operation.operation_id, terms) == terms
            assert (terms.inn, terms.amount_kopecks) == (operation.inn, operation.amount_kopecks)
    assert changed == {(True, False), (False, True)}


def test_every_bad_body_is_invalid() -> None:
    for body in workload.invalid_bodies(deck()[0].operation.fields):
        with pytest.raises(InvalidDelivery):
            parse(body)


@pytest.mark.parametrize("kopecks", [1, 10, 100, 150, 10_000, 14_500_050, 999_999_999_999_999])
def test_every_spelling_is_the_same_amount(kopecks: int) -> None:
    for text in workload.spellings(kopecks):
        assert Decimal(json.loads(text, parse_float=Decimal)) * 100 == kopecks


# The command


def command(*arguments: str) -> tuple[str, str, int]:
    """Standard output, the last line of standard error, exit code."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    try:
        call_command(Command(), "--seed=5", "--count=50", *arguments, stdout=out, stderr=err, no_color=True)
    except SystemExit as left:
        code = int(left.code or 0)
    return out.getvalue(), err.getvalue().splitlines()[-1], code


@pytest.mark.parametrize(
    ("wrong", "said", "code"),
    [({}, "10 of 10 organizations", 0), (FAILED, "9 of 10 organizations", 1), (FAILED, "history 0 times", 1)],
)
def test_the_command_says_how_it_went_and_leaves_with_0_or_1(wrong: Any, said: str, code: int) -> None:
    with serving(StandIn(**wrong)) as url:
        out, err, left_with = command("--url", url)
    assert said in out
    assert (err, left_with) == (f"Seed 5: 50 operations to {url}", code)


def test_the_report_is_one_json_object() -> None:
    with serving(StandIn()) as url:
        report = json.loads(command("--url", url, "--json")[0])
    assert (report["seed"], report["answers"], report["differences"]) == (5, {"success": 50}, [])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"post": lambda *_: NO_REPLY}, "has stopped answering"),
        ({"get": lambda *_: (404, {})}, "/balance/: 404 {}"),
        ({"get": lambda *_: NO_REPLY}, "/balance/: no answer: Remote end closed connection without response"),
    ],
)
def test_a_server_that_cannot_be_judged_is_one_plain_line(wrong: dict[str, Any], said: str) -> None:
    with serving(StandIn(**wrong)) as url:
        out, err, code = command("--url", url, "--timeout", "0.2")
    assert (out, code) == ("", 1)
    assert said in err


def test_an_interrupt_ends_with_a_plain_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> simulator.Report:
        raise KeyboardInterrupt

    monkeypatch.setattr(simulator, "run", interrupted)
    assert command() == ("", "Stopped; nothing was compared.", 130)


UNUSABLE = """
    --url=ftp://bank --url=localhost:8000 --count=0 --count=many --organizations=0 --duplicates=1.5 --seed=-1
    --conflicts=-0.1 --invalid=nan --rate=-1 --rate=inf --timeout=-1 --connections=0 --connections=1000
"""


@pytest.mark.parametrize("option", UNUSABLE.split())
def test_unusable_options_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        Command().run_from_argv(["manage.py", "simulate_bank", option])
    assert left.value.code == 2
    assert option.partition("=")[0] in capsys.readouterr().err.splitlines()[-1]


def test_the_key_is_taken_from_stdin_where_no_list_of_processes_shows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("prihod_0123456789ab_secret\n"))
    parser = Command().create_parser("manage.py", "simulate_bank")
    assert parser.parse_args(["--api-key", "-"]).api_key == "prihod_0123456789ab_secret"


def test_the_address_is_that_of_the_settings(settings: Any) -> None:
    settings.URL = "http://[::1]:8123"
    assert Command().create_parser("manage.py", "simulate_bank").parse_args([]).url == "http://[::1]:8123"
