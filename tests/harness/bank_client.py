"""A bank and its readers: seeded deliveries over HTTP, and a history of their outcomes.

A record is one attempt to deliver and ends as *ok* (200), *refused* (400) or *unknown* (503, or no response:
the webhook may be stored or not). Any other response is a violation.
"""

import http.client
import json
import random
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import zip_longest
from operator import attrgetter
from statistics import median
from typing import Any
from uuid import UUID, uuid5

RESPONSE_SECONDS_MAX = 6.0  # then the bank closes the connection: unknown
DATE = "2024-04-27T21:00:00Z"
HOT = "7707083893"
INNS = (HOT, *(f"{number:010}" for number in range(2_000_000_000, 2_000_000_009)))
SPELLINGS = (str, attrgetter("urn"), attrgetter("hex"), lambda operation_id: f"{{{operation_id}}}".upper())
BANK_PATH, TBANK_PATH = "/api/webhook/bank/", "/api/webhook/tbank/"
TBANK_TOKEN = "only-for-the-fault-suite"
TBANK_NAMESPACE = UUID("2903e94d-6036-5c2e-b36e-299064a6345d")  # of ingest/banks/tbank.py
OUR_ACCOUNT = "40702810000000000002"
RECENT_MAX = 300  # duplicates and conflicts repeat one of this many newest operations


@dataclass(frozen=True)
class DeliveredTerms:
    """The terms that one delivery states for an operation."""

    operation_id: UUID
    inn: str
    amount_kopecks: int
    document_number: str


@dataclass(frozen=True)
class BankDelivery:
    terms: DeliveredTerms
    body: bytes
    valid: bool = True
    path: str = BANK_PATH
    version: int | None = None  # of an operation that the bank corrects; the first is 1


@dataclass
class Attempt:
    delivery: BankDelivery
    outcome: str  # ok, refused, unknown, reconnected or wrong; empty while pending
    response: str  # the status and body, or the error
    started_at: float  # seconds on the monotonic clock
    seconds: float

    @property
    def pending(self) -> bool:
        return not self.outcome


@dataclass(frozen=True)
class DeliveryMix:
    """Shares of the deliveries; the rest are new operations. faults/failpoints.py makes `poison` fail."""

    duplicates: float = 0.12
    conflicts: float = 0.05
    invalid: float = 0.05
    poison: float = 0.0
    suspense: float = 0.0  # from T-Bank, of payers without an INN; the stack needs TBANK_TOKEN
    hot: float = 0.4  # share of new operations for one organization
    pad_bytes: int = 0  # in each body, in an unknown field


class DeliveryGenerator:
    """Generate the bank's deliveries, determined by the seed alone."""

    def __init__(self, rng: random.Random, mix: DeliveryMix) -> None:
        self._rng = rng
        self._mix = mix
        self._sent: deque[DeliveredTerms] = deque(maxlen=RECENT_MAX)
        self._lock = threading.Lock()

    def next(self) -> BankDelivery:
        with self._lock:
            kinds = [self._duplicate, self._conflict, self._invalid, self._unidentified, self._new]
            mix = self._mix
            shares = [mix.duplicates, mix.conflicts, mix.invalid, mix.suspense]
            kind = self._rng.choices(kinds, [*shares, 1 - sum(shares)])[0]
            return (kind if self._sent else self._new)()

    def batch(self, count: int) -> list[BankDelivery]:
        """Return `count` deliveries of new operations."""
        with self._lock:
            return [self._new() for _ in range(count)]

    def _new(self) -> BankDelivery:
        rng = self._rng
        number = f"PAY-{rng.randrange(10**6)}"
        if rng.random() < self._mix.poison:
            number = f"POISON-{rng.choice(['RAISE', 'KILL'])}"
        inn = HOT if rng.random() < self._mix.hot else rng.choice(INNS)
        terms = DeliveredTerms(self._operation_id(), inn, rng.randrange(1, 10**8), number)
        self._sent.append(terms)
        return make_delivery(terms, pad="x" * self._mix.pad_bytes)

    def _duplicate(self) -> BankDelivery:
        return make_delivery(self._rng.choice(self._sent), spelling=self._rng.choice(SPELLINGS))

    def _conflict(self) -> BankDelivery:
        return make_delivery(self.other_terms(self._rng.choice(self._sent)))

    def other_terms(self, terms: DeliveredTerms) -> DeliveredTerms:
        changed: dict[str, Any] = self._rng.choice(
            [
                {"amount_kopecks": terms.amount_kopecks + self._rng.randrange(1, 1000)},
                {"inn": self._rng.choice([inn for inn in INNS if inn != terms.inn])},
                {"document_number": terms.document_number + "-CHANGED"},
            ]
        )
        return DeliveredTerms(**{**vars(terms), **changed})

    def _invalid(self) -> BankDelivery:
        terms = DeliveredTerms(self._operation_id(), HOT, self._rng.randrange(1, 10**6), "REFUSE-ME")
        fields: dict[str, Any] = self._rng.choice(
            [{"amount": 0}, {"amount": "1e3"}, {"payer_inn": "12345"}, {"document_date": "yesterday"}]
        )
        return BankDelivery(terms, make_delivery(terms, **fields).body, valid=False)

    def _unidentified(self) -> BankDelivery:
        rng = self._rng
        payer, number = f"40817{rng.randrange(10**15):015}", str(rng.randrange(10**6))
        order = json.dumps([OUR_ACCOUNT, payer, number, DATE.replace("Z", "+00:00")])
        operation_id = uuid5(TBANK_NAMESPACE, f"payment order {order}")
        terms = DeliveredTerms(operation_id, f"@{OUR_ACCOUNT}", rng.randrange(1, 10**8), number)
        return make_tbank_delivery(terms, payer)

    def _operation_id(self) -> UUID:
        return UUID(int=self._rng.getrandbits(128), version=4)


def make_delivery(terms: DeliveredTerms, spelling: Any = str, **fields: Any) -> BankDelivery:
    """Return a delivery of `terms`; `fields` replace fields of its body."""
    stated = {
        "operation_id": spelling(terms.operation_id),
        "amount": f"{Decimal(terms.amount_kopecks).scaleb(-2):.2f}",
        "payer_inn": terms.inn,
        "document_number": terms.document_number,
        "document_date": DATE,
    }
    return BankDelivery(terms, json.dumps(stated | fields).encode())


def make_tbank_delivery(terms: DeliveredTerms, payer_account: str) -> BankDelivery:
    """Return an operation of T-Bank, of a payer without an INN."""
    stated = {
        "operationId": str(terms.operation_id),
        "operationStatus": "Transaction",
        "typeOfOperation": "Credit",
        "accountNumber": OUR_ACCOUNT,
        "accountCurrencyDigitalCode": "643",
        "operationCurrencyDigitalCode": "643",
        "accountAmount": f"{Decimal(terms.amount_kopecks).scaleb(-2):.2f}",
        "documentNumber": terms.document_number,
        "docDate": DATE,
        "payer": {"acct": payer_account, "inn": "0"},
    }
    return BankDelivery(terms, json.dumps(stated).encode(), path=TBANK_PATH)


class KeepAliveConnection:
    """One kept-alive HTTP connection, reopened after each error."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._http: http.client.HTTPConnection | None = None

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Return status and body. Raise OSError or HTTPException if the response is incomplete."""
        self._http = self._http or http.client.HTTPConnection(
            "127.0.0.1", self._port, timeout=RESPONSE_SECONDS_MAX
        )
        try:
            headers = {"Content-Type": "application/json"}
            if path == TBANK_PATH:
                headers["Authorization"] = f"Bearer {TBANK_TOKEN}"
            self._http.request(method, path, body, headers)
            response = self._http.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if response.getheader("Content-Type") != "application/json":
            return 0, content  # a violation, with any status
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
    """What one reader has seen of one organization: entries by seq, each as first read."""

    entries: dict[int, tuple[str, Decimal, Decimal]] = field(default_factory=dict)
    newest: int = 0
    balance: Decimal = Decimal()


class RecordingBank:
    """Send over several connections and read over one more, until closed.

    rate: deliveries per second of all senders. A sender that waited longer for its response sends at once.
    """

    def __init__(
        self, port: int, deliveries: DeliveryGenerator, *, senders: int = 16, rate: float = 200.0
    ) -> None:
        self.deliveries = deliveries
        self.history: list[Attempt] = []
        self.violations: list[str] = []  # violations seen by clients at any moment
        self.readings: dict[str, ObservedHistory] = defaultdict(ObservedHistory)
        self.corrects = False  # whether operators correct payments meanwhile, so that balances may fall
        self.reads = 0  # answered reads of balance and history
        self._port = port
        self._interval_seconds = senders / rate  # of one sender
        self._closing = threading.Event()
        self._open = threading.Event()
        self._open.set()
        self._senders = senders
        self._pool = ThreadPoolExecutor(senders + 1)
        self._running: list[Future[None]] = []

    def open(self) -> None:
        self._running = [self._pool.submit(self._send_all, number) for number in range(self._senders)]
        self._running.append(self._pool.submit(self._read_all))

    def pause(self, seconds: float) -> None:
        self._open.clear()
        time.sleep(seconds)
        self._open.set()

    def close(self) -> None:
        """Stop sending and reading after the pending requests."""
        self._closing.set()
        for client in self._running:
            client.result()

    def _send_all(self, number: int) -> None:
        due = time.monotonic() + self._interval_seconds * (number + 1) / self._senders
        with closing(KeepAliveConnection(self._port)) as connection:
            while not self._closing.wait(due - time.monotonic()):
                self._open.wait()
                self.deliver(self.deliveries.next(), connection)
                due = max(due + self._interval_seconds, time.monotonic())

    def deliver(self, delivery: BankDelivery, connection: KeepAliveConnection | None = None) -> Attempt:
        """Make one attempt, or two if the server has closed the idle connection, which HTTP permits."""
        if connection is None:
            with closing(KeepAliveConnection(self._port)) as fresh:
                return self.deliver(delivery, fresh)
        was_used = connection.is_used
        attempt = self._attempt(delivery, connection)
        if (
            attempt.outcome == "unknown"
            and was_used
            and not connection.is_used
            and attempt.response in _CLOSED
        ):
            attempt.outcome = "reconnected"
            attempt = self._attempt(delivery, connection)
        return attempt

    def _attempt(self, delivery: BankDelivery, connection: KeepAliveConnection) -> Attempt:
        attempt = Attempt(delivery, "", "", time.monotonic(), 0.0)
        self.history.append(attempt)  # before it is sent, because it may arrive in any case
        try:
            status, content = connection.request("POST", delivery.path, delivery.body)
            attempt.response = f"{status} {content.decode(errors='replace')[:100]}"
            attempt.outcome = {200: "ok", 400: "refused", 503: "unknown"}.get(status, "wrong")
        except (OSError, http.client.HTTPException) as exc:
            attempt.response, attempt.outcome = type(exc).__name__, "unknown"
        attempt.seconds = time.monotonic() - attempt.started_at
        if attempt.outcome == "wrong":
            self.violations.append(f"the bank got the response {attempt.response}")
        return attempt

    def hang_up(self, delivery: BankDelivery) -> None:
        """Send a delivery, and close the connection before its response."""
        self.history.append(Attempt(delivery, "unknown", "hung up", time.monotonic(), 0.0))
        with closing(http.client.HTTPConnection("127.0.0.1", self._port)) as connection:
            connection.request("POST", "/api/webhook/bank/", delivery.body)

    # Outcomes

    def count(self, outcome: str) -> int:
        return sum(attempt.outcome == outcome for attempt in self.history)

    def rate(self) -> int:
        """Return the median number of deliveries begun in a second, which outages hardly change."""
        counts = Counter(int(attempt.started_at) for attempt in self.history)
        return int(median(counts.values())) if counts else 0

    def latencies(self, since: float, until: float) -> list[float]:
        """Return the seconds of each answered request that began in this time span, sorted."""
        answered = (e for e in list(self.history) if e.outcome == "ok" and since <= e.started_at < until)
        return sorted(attempt.seconds for attempt in answered)

    # Readers

    def _read_all(self) -> None:
        rng = random.Random(0)
        with closing(KeepAliveConnection(self._port)) as connection:
            while not self._closing.wait(0.02):
                self._open.wait()
                with suppress(OSError, http.client.HTTPException, _ReadFailed):
                    self._read(rng.choice([HOT, HOT, *INNS]), connection)
                    self.reads += 1

    def _read(self, inn: str, connection: KeepAliveConnection) -> None:
        """Check a balance that is read between two histories: it is the one after an entry in between.

        One history response is one SQL statement, so its entries must be consecutive. Two requests see two
        moments, but entries are only appended, so the second history contains everything in between.
        """
        seen = self.readings[inn]
        self._read_history(inn, seen, connection)
        since = seen.newest
        response = _get(connection, f"/api/organizations/{inn}/balance/")
        balance = response["balance"] if response else Decimal()
        self._read_history(inn, seen, connection)
        between = {
            seen.entries[seq][2] for seq in range(max(since, 1), seen.newest + 1) if seq in seen.entries
        }
        complete = all(seq in seen.entries for seq in range(max(since, 1), seen.newest + 1))
        if since == 0:
            between.add(Decimal())
        if complete and balance not in between:
            self.violations.append(
                f"{inn}: balance {balance} is after none of the entries {since}..{seen.newest}"
            )
        if balance < seen.balance and not self.corrects:
            self.violations.append(f"{inn}: the balance fell from {seen.balance} to {balance}")
        seen.balance = balance

    def _read_history(self, inn: str, seen: ObservedHistory, connection: KeepAliveConnection) -> None:
        response = _get(connection, f"/api/organizations/{inn}/balance/history/?limit=100")
        entries = response["history"] if response else []
        for newer, older in zip_longest(entries, entries[1:]):
            self._check_step(inn, newer, older)
            stated = (newer["operation_id"], newer["amount"], newer["balance_after"])
            if seen.entries.setdefault(newer["seq"], stated) != stated:
                self.violations.append(f"{inn}: entry {newer['seq']} has changed since it was read")
        newest = entries[0]["seq"] if entries else 0
        if newest < seen.newest:
            self.violations.append(f"{inn}: entry {seen.newest} is missing, the newest is {newest}")
        seen.newest = newest

    def _check_step(self, inn: str, newer: dict[str, Any], older: dict[str, Any] | None) -> None:
        if older is None and newer["seq"] > 1:
            return  # the page ends here, not the history
        seq, balance = (older["seq"], older["balance_after"]) if older else (0, Decimal())
        if newer["seq"] != seq + 1 or newer["balance_after"] != balance + newer["amount"]:
            self.violations.append(f"{inn}: entry {newer['seq']} does not follow entry {seq} in one response")


_CLOSED = {"RemoteDisconnected", "ConnectionResetError", "BrokenPipeError", "ConnectionAbortedError"}


class _ReadFailed(Exception):
    """The read was answered, but with neither 200 nor 404."""


def _get(connection: KeepAliveConnection, path: str) -> Any:
    """Return the response with fractions as Decimal; None if the organization is unknown."""
    status, content = connection.request("GET", path)
    if status not in (200, 404):
        raise _ReadFailed
    return json.loads(content, parse_float=Decimal) if status == 200 else None


def retries(history: list[Attempt], rng: random.Random) -> Iterator[BankDelivery]:
    """Yield half of the deliveries with unknown outcome, which the bank retries."""
    settled = {attempt.delivery.terms for attempt in history if attempt.outcome in ("ok", "refused")}
    for terms, delivery in {e.delivery.terms: e.delivery for e in history if e.outcome == "unknown"}.items():
        if terms not in settled and rng.random() < 0.5:
            yield delivery
