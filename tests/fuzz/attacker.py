"""Send attacks on sockets of one's own, honest deliveries in between, and judge every answer."""

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

from tests.fuzz.corpus import HONEST, WEBHOOK, Attack
from tests.fuzz.mutation import attacks

ANSWER_SECONDS_MAX = 30.0  # a bound, not a measure: the machine may be busy
PIECES_APART_SECONDS = 0.005
HONEST_EVERY = 40  # attacks
SHOWN_BYTES = 600
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-5][0-9]{2}) [^\r\n]*\Z")
_HTML = re.compile(rb"<\s*(?:html|!doctype|body|title|h1)", re.IGNORECASE)
# By the contract: what did not arrive is to be sent again, and a delivery that waited too long for a thread.
SHED = b'{"error":"too busy, please send again"}'  # of an answer to a HEAD only the length is sent
MAY_BE_503 = {b"incomplete body": "503 incomplete", b"too busy": "503 shed", b"not configured": "503 host"}


class Malformed(Exception):
    """Bytes that are no HTTP answer."""


@dataclass(frozen=True)
class RawResponse:
    status: int
    content_type: bytes
    body: bytes
    length: int = 0  # of the body, as the head says


@dataclass
class AttackResults:
    """What came of a run."""

    table: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # door, kind, result
    findings: list[str] = field(default_factory=list)
    honest_kopecks: int = 0
    honest_count: int = 0
    honest_seconds_max: float = 0.0

    @property
    def requests(self) -> int:
        return self.table.total()


class Attacker:
    """Attacks one server over several connections at once."""

    def __init__(self, port: int, seed: int, connections: int = 16) -> None:
        self.outcome = AttackResults()
        self._port, self._seed, self._connections = port, seed, connections
        self._lock = threading.Lock()

    def run(self, count: int, progress: Callable[[], object] = lambda: None) -> AttackResults:
        with ThreadPoolExecutor(self._connections) as pool:
            stream = enumerate(attacks(self._seed, count))
            list(pool.map(lambda _: self._take_from(stream, progress), range(self._connections)))
        return self.outcome

    def _take_from(self, stream: Iterator[tuple[int, Attack]], progress: Callable[[], object]) -> None:
        while True:
            with self._lock:
                number, attack = next(stream, (0, None))
            if attack is None:
                return
            self._try(attack)
            if number % HONEST_EVERY == 0:
                self._deliver_honestly(number)
            progress()

    def _try(self, attack: Attack) -> None:
        try:
            received = exchange(self._port, attack.pieces)
            answers = list(read_answers(received))
            wrong = [what for answer in answers if (what := violation(attack, answer))]
            result = result_of(answers)
        except TimeoutError:
            wrong, result = [f"no end of the answer within {ANSWER_SECONDS_MAX:.0f} s"], "hung"
        except Malformed as what:
            wrong, result = [str(what)], "malformed"
        with self._lock:
            self.outcome.table[attack.endpoint, attack.kind, result] += 1
            self.outcome.findings += [
                f"{attack.kind}: {what}: {attack.raw[:SHOWN_BYTES]!r}" for what in wrong
            ]

    def _deliver_honestly(self, number: int) -> None:
        chance = random.Random(f"honest {self._seed} {number}")
        kopecks = chance.randint(1, 10_000_00)
        webhook = honest(chance, kopecks)
        begun = time.monotonic()
        while (said := deliver(self._port, webhook))[0] == 503:  # a bank sends again
            if time.monotonic() - begun > ANSWER_SECONDS_MAX:
                break
        seconds = time.monotonic() - begun
        with self._lock:
            self.outcome.honest_count += 1
            self.outcome.honest_seconds_max = max(self.outcome.honest_seconds_max, seconds)
            self.outcome.honest_kopecks += kopecks
            if said[0] != 200 or seconds > ANSWER_SECONDS_MAX:
                self.outcome.findings.append(f"an honest delivery got {said} after {seconds:.1f} s")


def honest(chance: random.Random, kopecks: int, document_number: str = "PAY-328") -> bytes:
    return json.dumps(
        {
            "operation_id": str(UUID(int=chance.getrandbits(128))),
            "amount": f"{kopecks // 100}.{kopecks % 100:02}",
            "payer_inn": HONEST,
            "document_number": document_number,
            "document_date": "2024-04-27T21:00:00Z",
        }
    ).encode()


def deliver(port: int, body: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS_MAX)
    try:
        connection.request("POST", WEBHOOK, body)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as gone:
        return 0, repr(gone).encode()
    finally:
        connection.close()


def exchange(port: int, pieces: tuple[bytes, ...]) -> bytes:
    """Send, say that nothing more comes, and return all that is answered until the server hangs up.

    A server may hang up before it has read all (a reset): what it had answered until then counts.
    """
    received = bytearray()
    deadline = time.monotonic() + ANSWER_SECONDS_MAX
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS_MAX) as connection:
        try:
            for number, piece in enumerate(pieces):
                if number:
                    time.sleep(PIECES_APART_SECONDS)
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


def read_answers(received: bytes) -> Iterator[RawResponse]:
    """Raises Malformed. The answer to a HEAD has a length and no body, and is always the last here."""
    while received:
        head, end, received = received.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        status = _STATUS_LINE.match(lines[0])
        if not status or not end:
            raise Malformed(f"no answer in HTTP: {head[:SHOWN_BYTES]!r}")
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


def violation(attack: Attack, answer: RawResponse) -> str | None:
    """What is wrong with an answer, whatever was asked."""
    if b"Traceback" in answer.body or b"site-packages" in answer.body:
        return f"a traceback: {answer.body[:SHOWN_BYTES]!r}"
    if answer.status >= 500 and not _allowed_503(answer):
        return f"{answer.status} {answer.body[:SHOWN_BYTES]!r}"
    if b"success" in answer.body or b"already processed" in answer.body:
        return f"taken for a valid delivery: {answer.body!r}"
    html = b"html" in answer.content_type or _HTML.search(answer.body)
    if html and attack.endpoint != "admin" and b"/api/" in attack.raw:
        return f"HTML: {answer.body[:SHOWN_BYTES]!r}"
    return None


def _allowed_503(answer: RawResponse) -> str | None:
    if answer.status == 503 and not answer.body and answer.length == len(SHED):
        return "503 shed"
    words = (said for because, said in MAY_BE_503.items() if answer.status == 503 and because in answer.body)
    return next(words, None)


def result_of(answers: list[RawResponse]) -> str:
    """The last answer of a connection, for the table; one that was closed without a word has none."""
    if not answers:
        return "closed"
    return _allowed_503(answers[-1]) or str(answers[-1].status)
