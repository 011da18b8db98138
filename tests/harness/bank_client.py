"""The bank and its readers: seeded deliveries over real HTTP, and a log of what was heard of each.

An entry of the log is one attempt to deliver, and ends in one of three ways: *ok* (200), *refused* (400),
*unknown* (503, or no answer at all: it may be stored or not). Any other answer is wrong in itself.
"""

import http.client
import json
import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import zip_longest
from operator import attrgetter
from typing import Any
from uuid import UUID

ANSWER_SECONDS_MAX = 6.0  # then the bank hangs up and calls it unknown
DATE = "2024-04-27T21:00:00Z"
HOT = "7707083893"
INNS = (HOT, *(f"{number:010}" for number in range(2_000_000_000, 2_000_000_009)))
SPELLINGS = (str, attrgetter("urn"), attrgetter("hex"), lambda operation_id: f"{{{operation_id}}}".upper())
RECENT_MAX = 300  # of the operations sent so far, duplicates and conflicts repeat one of the newest


@dataclass(frozen=True)
class DeliveredTerms:
    """What one telling of an operation says, in the words of the checker."""

    operation_id: UUID
    inn: str
    amount_kopecks: int
    document_number: str


@dataclass(frozen=True)
class BankDelivery:
    terms: DeliveredTerms
    body: bytes
    valid: bool = True


@dataclass
class Attempt:
    delivery: BankDelivery
    outcome: str  # ok, refused, unknown, or what else came; empty while it is on its way
    answer: str  # the status, or the reason why there was none
    began: float  # seconds on the monotonic clock
    seconds: float

    @property
    def pending(self) -> bool:
        return not self.outcome


@dataclass(frozen=True)
class DeliveryMix:
    """Shares of the deliveries; the rest are new operations, which `poison` marks for faults/failpoints.py."""

    duplicates: float = 0.12
    conflicts: float = 0.05
    invalid: float = 0.05
    poison: float = 0.0
    hot: float = 0.4  # of the new operations, to one organization
    pad_bytes: int = 0  # in each body, in a field that nobody asked for


class DeliveryGenerator:
    """What the bank sends next, decided by the seed alone."""

    def __init__(self, chance: random.Random, mix: DeliveryMix) -> None:
        self._chance = chance
        self._mix = mix
        self._sent: deque[DeliveredTerms] = deque(maxlen=RECENT_MAX)
        self._lock = threading.Lock()

    def next(self) -> BankDelivery:
        with self._lock:
            kinds = [self._duplicate, self._conflict, self._invalid, self._new]
            mix = self._mix
            shares = [mix.duplicates, mix.conflicts, mix.invalid]
            kind = self._chance.choices(kinds, [*shares, 1 - sum(shares)])[0]
            return (kind if self._sent else self._new)()

    def batch(self, count: int) -> list[BankDelivery]:
        """So many new operations."""
        with self._lock:
            return [self._new() for _ in range(count)]

    def _new(self) -> BankDelivery:
        chance = self._chance
        number = f"PAY-{chance.randrange(10**6)}"
        if chance.random() < self._mix.poison:
            number = f"POISON-{chance.choice(['RAISE', 'KILL'])}"
        inn = HOT if chance.random() < self._mix.hot else chance.choice(INNS)
        terms = DeliveredTerms(self._operation_id(), inn, chance.randrange(1, 10**8), number)
        self._sent.append(terms)
        return make_delivery(terms, pad="x" * self._mix.pad_bytes)

    def _duplicate(self) -> BankDelivery:
        return make_delivery(self._chance.choice(self._sent), spelling=self._chance.choice(SPELLINGS))

    def _conflict(self) -> BankDelivery:
        return make_delivery(self.other_terms(self._chance.choice(self._sent)))

    def other_terms(self, terms: DeliveredTerms) -> DeliveredTerms:
        changed: dict[str, Any] = self._chance.choice(
            [
                {"amount_kopecks": terms.amount_kopecks + self._chance.randrange(1, 1000)},
                {"inn": self._chance.choice([inn for inn in INNS if inn != terms.inn])},
                {"document_number": terms.document_number + "-CHANGED"},
            ]
        )
        return DeliveredTerms(**{**vars(terms), **changed})

    def _invalid(self) -> BankDelivery:
        terms = DeliveredTerms(self._operation_id(), HOT, self._chance.randrange(1, 10**6), "REFUSE-ME")
        fields: dict[str, Any] = self._chance.choice(
            [{"amount": 0}, {"amount": "1e3"}, {"payer_inn": "12345"}, {"document_date": "yesterday"}]
        )
        return BankDelivery(terms, make_delivery(terms, **fields).body, valid=False)

    def _operation_id(self) -> UUID:
        return UUID(int=self._chance.getrandbits(128), version=4)


def make_delivery(terms: DeliveredTerms, spelling: Any = str, **fields: Any) -> BankDelivery:
    """A delivery of `terms`; `fields` replace what they say, in the bank's words."""
    told = {
        "operation_id": spelling(terms.operation_id),
        "amount": f"{Decimal(terms.amount_kopecks).scaleb(-2):.2f}",
        "payer_inn": terms.inn,
        "document_number": terms.document_number,
        "document_date": DATE,
    }
    return BankDelivery(terms, json.dumps(told | fields).encode())


class KeepAliveConnection:
    """Keeps one HTTP connection alive, and makes a new one after each trouble."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._http: http.client.HTTPConnection | None = None

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body. Raises OSError or http.client.HTTPException where there is no whole answer."""
        self._http = self._http or http.client.HTTPConnection(
            "127.0.0.1", self._port, timeout=ANSWER_SECONDS_MAX
        )
        try:
            self._http.request(method, path, body, {"Content-Type": "application/json"})
            response = self._http.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if response.getheader("Content-Type") != "application/json":
            return 0, content  # wrong, whatever its status
        return response.status, content

    @property
    def is_used(self) -> bool:
        return self._http is not None

    def close(self) -> None:
        if self._http:
            self._http.close()
        self._http = None


@dataclass
class ObservedHistory:
    """What one reader learned of one organization: lines by seq, each as the first read told it."""

    lines: dict[int, tuple[str, Decimal, Decimal]] = field(default_factory=dict)
    newest: int = 0
    balance: Decimal = Decimal()


class RecordingBank:
    """Sends from several connections, reads from one more, until it is closed."""

    def __init__(
        self, port: int, deliveries: DeliveryGenerator, *, senders: int = 8, rate: float = 160.0
    ) -> None:
        self.deliveries = deliveries
        self.log: list[Attempt] = []
        self.wrong: list[str] = []  # whatever a client saw that may not be, at any moment
        self.readings: dict[str, ObservedHistory] = defaultdict(ObservedHistory)
        self.reads = 0  # of balance and history together, answered
        self._port = port
        self._pause_seconds = senders / rate
        self._closing = threading.Event()
        self._open = threading.Event()
        self._open.set()
        self._senders = senders
        self._pool = ThreadPoolExecutor(senders + 1)
        self._running: list[Future[None]] = []

    def open(self) -> None:
        self._running = [self._pool.submit(self._send_all) for _ in range(self._senders)]
        self._running.append(self._pool.submit(self._read_all))

    def pause(self, seconds: float) -> None:
        self._open.clear()
        time.sleep(seconds)
        self._open.set()

    def close(self) -> None:
        """Stop sending and reading, when each has heard of its last request."""
        self._closing.set()
        for client in self._running:
            client.result()

    def _send_all(self) -> None:
        with closing(KeepAliveConnection(self._port)) as connection:
            while not self._closing.wait(self._pause_seconds):
                self._open.wait()
                self.deliver(self.deliveries.next(), connection)

    def deliver(self, delivery: BankDelivery, connection: KeepAliveConnection | None = None) -> Attempt:
        """One attempt; two where a kept connection turned out to be closed, as it is every client's right."""
        if connection is None:
            with closing(KeepAliveConnection(self._port)) as fresh:
                return self.deliver(delivery, fresh)
        was_used = connection.is_used
        entry = self._attempt(delivery, connection)
        if entry.outcome == "unknown" and was_used and not connection.is_used and entry.answer in _CLOSED:
            entry.outcome = "reconnected"
            entry = self._attempt(delivery, connection)
        return entry

    def _attempt(self, delivery: BankDelivery, connection: KeepAliveConnection) -> Attempt:
        entry = Attempt(delivery, "", "", time.monotonic(), 0.0)
        self.log.append(entry)  # before it is sent: whatever happens, it may have arrived
        try:
            status, content = connection.request("POST", "/api/webhook/bank/", delivery.body)
            entry.answer = f"{status} {content.decode(errors='replace')[:100]}"
            entry.outcome = {200: "ok", 400: "refused", 503: "unknown"}.get(status, "wrong")
        except (OSError, http.client.HTTPException) as fault:
            entry.answer, entry.outcome = type(fault).__name__, "unknown"
        entry.seconds = time.monotonic() - entry.began
        if entry.outcome == "wrong":
            self.wrong.append(f"the bank was answered {entry.answer}")
        return entry

    # What it heard

    def count(self, outcome: str) -> int:
        return sum(entry.outcome == outcome for entry in self.log)

    def latencies(self, since: float, until: float) -> list[float]:
        """Seconds of each answered request that began between these moments."""
        heard = (e for e in list(self.log) if e.outcome == "ok" and since <= e.began < until)
        return sorted(entry.seconds for entry in heard)

    # Readers

    def _read_all(self) -> None:
        chance = random.Random(0)
        with closing(KeepAliveConnection(self._port)) as connection:
            while not self._closing.wait(0.02):
                self._open.wait()
                with suppress(OSError, http.client.HTTPException, _NotNow):
                    self._read(chance.choice([HOT, HOT, *INNS]), connection)
                    self.reads += 1

    def _read(self, inn: str, connection: KeepAliveConnection) -> None:
        """Balance between two histories: it must be the one after a line between their newest lines.

        One answer of the history is one statement, so its lines must follow from each other. Two requests
        are two moments; but the log only grows, so what lies between them is known from the second history.
        """
        known = self.readings[inn]
        self._learn(inn, known, connection)
        since = known.newest
        answer = _get(connection, f"/api/organizations/{inn}/balance/")
        balance = answer["balance"] if answer else Decimal()
        self._learn(inn, known, connection)
        between = {
            known.lines[seq][2] for seq in range(max(since, 1), known.newest + 1) if seq in known.lines
        }
        whole = all(seq in known.lines for seq in range(max(since, 1), known.newest + 1))
        if since == 0:
            between.add(Decimal())
        if whole and balance not in between:
            self.wrong.append(f"{inn}: balance {balance} is after none of the lines {since}..{known.newest}")
        if balance < known.balance:
            self.wrong.append(f"{inn}: the balance fell from {known.balance} to {balance}")
        known.balance = balance

    def _learn(self, inn: str, known: ObservedHistory, connection: KeepAliveConnection) -> None:
        answer = _get(connection, f"/api/organizations/{inn}/balance/history/?limit=100")
        lines = answer["history"] if answer else []
        for newer, older in zip_longest(lines, lines[1:]):
            self._check_step(inn, newer, older)
            told = (newer["operation_id"], newer["amount"], newer["balance_after"])
            if known.lines.setdefault(newer["seq"], told) != told:
                self.wrong.append(f"{inn}: line {newer['seq']} has changed since it was read")
        newest = lines[0]["seq"] if lines else 0
        if newest < known.newest:
            self.wrong.append(f"{inn}: line {known.newest} has gone, the newest is {newest}")
        known.newest = newest

    def _check_step(self, inn: str, newer: dict[str, Any], older: dict[str, Any] | None) -> None:
        if older is None and newer["seq"] > 1:
            return  # the page ends here, not the log
        seq, balance = (older["seq"], older["balance_after"]) if older else (0, Decimal())
        if newer["seq"] != seq + 1 or newer["balance_after"] != balance + newer["amount"]:
            self.wrong.append(f"{inn}: line {newer['seq']} does not follow from line {seq} in one answer")


_CLOSED = {"RemoteDisconnected", "ConnectionResetError", "BrokenPipeError", "ConnectionAbortedError"}


class _NotNow(Exception):
    """The read was answered, but not with what was asked for."""


def _get(connection: KeepAliveConnection, path: str) -> Any:
    """The answer, its fractions as Decimals; None where the organization is not known."""
    status, content = connection.request("GET", path)
    if status not in (200, 404):
        raise _NotNow
    return json.loads(content, parse_float=Decimal) if status == 200 else None


def resent(log: list[Attempt], chance: random.Random) -> Iterator[BankDelivery]:
    """Half of the deliveries that the bank has heard nothing good of: it tries those again."""
    settled = {entry.delivery.terms for entry in log if entry.outcome in ("ok", "refused")}
    for terms, delivery in {e.delivery.terms: e.delivery for e in log if e.outcome == "unknown"}.items():
        if terms not in settled and chance.random() < 0.5:
            yield delivery
