"""Send attacks over raw sockets with valid deliveries in between, and check every response."""

import http.client
import json
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from uuid import UUID

from tests.fuzz.corpus import VALID_INN, WEBHOOK, Attack
from tests.fuzz.mutation import attacks

RESPONSE_SECONDS_MAX = 30.0  # a bound, not a measurement: the machine may be busy
PAUSE_BETWEEN_PIECES_SECONDS = 0.005
VALID_DELIVERY_EVERY = 40  # attacks
SHOWN_BYTES = 600
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-5][0-9]{2}) [^\r\n]*\Z")
_HTML = re.compile(rb"<\s*(?:html|!doctype|body|title|h1)", re.IGNORECASE)
# By contract 503 means "retry": after an incomplete body, and if too many deliveries wait.
TOO_BUSY = b'{"error":"too busy, please send again"}'  # a response to HEAD has only its length
MAY_BE_503 = {b"arrived incomplete": "503 incomplete", b"too busy": "503 busy", b"not configured": "503 host"}


class Malformed(Exception):
    """The bytes received are not an HTTP response."""


@dataclass(frozen=True)
class RawResponse:
    status: int
    content_type: bytes
    body: bytes
    length: int = 0  # of the body, according to the headers


@dataclass
class AttackResults:
    table: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # endpoint, kind, result
    findings: list[str] = field(default_factory=list)
    valid_kopecks: int = 0
    valid_count: int = 0
    valid_seconds_max: float = 0.0

    @property
    def requests(self) -> int:
        return self.table.total()


class Attacker:
    """Attack one server over several parallel connections."""

    def __init__(self, port: int, seed: int, connections: int = 16) -> None:
        self.results = AttackResults()
        self._port, self._seed, self._connections = port, seed, connections
        self._lock = threading.Lock()

    def run(self, count: int, progress: Callable[[], object] = lambda: None) -> AttackResults:
        with ThreadPoolExecutor(self._connections) as pool:
            stream = enumerate(attacks(self._seed, count))
            list(pool.map(lambda _: self._run_attacks(stream, progress), range(self._connections)))
        return self.results

    def _run_attacks(self, stream: Iterator[tuple[int, Attack]], progress: Callable[[], object]) -> None:
        while True:
            with self._lock:
                number, attack = next(stream, (0, None))
            if attack is None:
                return
            self._send(attack)
            if number % VALID_DELIVERY_EVERY == 0:
                self._deliver_valid(number)
            progress()

    def _send(self, attack: Attack) -> None:
        try:
            received = exchange(self._port, attack.pieces)
            responses = list(read_responses(received))
            violations = [found for each in responses if (found := violation(attack, each))]
            result = result_of(responses)
        except TimeoutError:
            violations, result = [f"the response did not end within {RESPONSE_SECONDS_MAX:.0f} s"], "hung"
        except Malformed as exc:
            violations, result = [str(exc)], "malformed"
        with self._lock:
            self.results.table[attack.endpoint, attack.kind, result] += 1
            self.results.findings += [
                f"{attack.kind}: {each}: {attack.raw[:SHOWN_BYTES]!r}" for each in violations
            ]

    def _deliver_valid(self, number: int) -> None:
        rng = random.Random(f"valid {self._seed} {number}")
        kopecks = rng.randint(1, 10_000_00)
        webhook = valid_body(rng, kopecks)
        start = time.monotonic()
        while (response := deliver(self._port, webhook))[0] == 503:  # a bank retries
            if time.monotonic() - start > RESPONSE_SECONDS_MAX:
                break
        seconds = time.monotonic() - start
        with self._lock:
            self.results.valid_count += 1
            self.results.valid_seconds_max = max(self.results.valid_seconds_max, seconds)
            self.results.valid_kopecks += kopecks
            if response[0] != 200 or seconds > RESPONSE_SECONDS_MAX:
                self.results.findings.append(f"a valid delivery got {response} after {seconds:.1f} s")


def valid_body(rng: random.Random, kopecks: int, document_number: str = "PAY-328") -> bytes:
    return json.dumps(
        {
            "operation_id": str(UUID(int=rng.getrandbits(128))),
            "amount": f"{kopecks // 100}.{kopecks % 100:02}",
            "payer_inn": VALID_INN,
            "document_number": document_number,
            "document_date": "2024-04-27T21:00:00Z",
        }
    ).encode()


def deliver(port: int, body: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=RESPONSE_SECONDS_MAX)
    try:
        connection.request("POST", WEBHOOK, body)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as exc:
        return 0, repr(exc).encode()
    finally:
        connection.close()


def exchange(port: int, pieces: tuple[bytes, ...]) -> bytes:
    """Send the pieces, shut down the sending side, and return everything received until the server closes.

    A server may reset the connection before it has read everything; what it sent until then counts.
    """
    received = bytearray()
    deadline = time.monotonic() + RESPONSE_SECONDS_MAX
    with socket.create_connection(("127.0.0.1", port), timeout=RESPONSE_SECONDS_MAX) as connection:
        try:
            for number, piece in enumerate(pieces):
                if number:
                    time.sleep(PAUSE_BETWEEN_PIECES_SECONDS)
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            while chunk := connection.recv(65536):
                received += chunk
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
        except ConnectionResetError:
            pass
    return bytes(received)


def read_responses(received: bytes) -> Iterator[RawResponse]:
    """Yield the responses. Raise Malformed for bytes that are not HTTP.

    The response to a HEAD has a length and no body; here it is always the last one.
    """
    while received:
        head, end, received = received.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        status = _STATUS_LINE.match(lines[0])
        if not status or not end:
            raise Malformed(f"no HTTP response: {head[:SHOWN_BYTES]!r}")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])
        }
        if status[1].startswith(b"1"):
            continue
        if headers.get(b"transfer-encoding") == b"chunked":
            body, received, length = received, b"", 0
        else:
            length = int(headers.get(b"content-length", b"0"))
            body, received = received[:length], received[length:]
        yield RawResponse(int(status[1]), headers.get(b"content-type", b""), body, length)


def violation(attack: Attack, response: RawResponse) -> str | None:
    """Return the violation in the response, if any: a 5xx, a traceback, a credit, or HTML from the API."""
    if b"Traceback" in response.body or b"site-packages" in response.body:
        return f"a traceback: {response.body[:SHOWN_BYTES]!r}"
    if response.status >= 500 and not _allowed_503(response):
        return f"{response.status} {response.body[:SHOWN_BYTES]!r}"
    if b"success" in response.body or b"already processed" in response.body:
        return f"accepted as a valid delivery: {response.body!r}"
    html = b"html" in response.content_type or _HTML.search(response.body)
    if html and attack.endpoint != "admin" and b"/api/" in attack.raw:
        return f"HTML: {response.body[:SHOWN_BYTES]!r}"
    return None


def _allowed_503(response: RawResponse) -> str | None:
    if response.status == 503 and not response.body and response.length == len(TOO_BUSY):
        return "503 busy"
    results = (result for text, result in MAY_BE_503.items() if text in response.body)
    return next(results, None) if response.status == 503 else None


def result_of(responses: list[RawResponse]) -> str:
    """Return the last response of a connection for the table; "closed" if there was none."""
    if not responses:
        return "closed"
    return _allowed_503(responses[-1]) or str(responses[-1].status)
