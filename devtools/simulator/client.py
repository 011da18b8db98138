"""Talking to the server with a bank's patience; nothing of it is known but its HTTP interface."""

import hashlib
import http.client
import json
import time
import urllib.parse
from dataclasses import dataclass, replace
from decimal import Decimal

import msgspec

from ingest import signatures

ATTEMPTS_MAX = 10
ATTEMPT_SECONDS_MAX = 10.0
PAUSE_SECONDS_MAX = 2.0
IDLE_SECONDS_MAX = 1.0

NO_RESPONSE = 0  # in place of a status: the outcome of the attempt is unknown
RETRYABLE = frozenset({NO_RESPONSE, 502, 503, 504})

Rubles = int | Decimal  # a JSON number, read exactly


class SimulationError(Exception):
    """The simulation cannot go on; the message is one plain line."""


class HistoryEntry(msgspec.Struct):
    seq: int
    operation_id: str
    amount: Rubles
    balance_after: Rubles


class ResponseBody(msgspec.Struct):
    """Whatever the server tells; each of its answers has its own few of these fields."""

    error: str = ""
    status: str = ""
    balance: Rubles = 0
    history: list[HistoryEntry] = []


@dataclass(frozen=True, slots=True)
class Response:
    """To the last of `attempts`. The content is None where the body is not of the server's own making."""

    status: int
    body: bytes
    content: ResponseBody | None = None
    retry_after: str = ""
    attempts: int = 1

    @property
    def word(self) -> str:
        """How a bank sorts it: success, already processed, invalid, other, or given up."""
        content = self.content or ResponseBody()
        if self.status == 200 and content.status in ("success", "already processed"):
            return content.status
        if self.status in RETRYABLE:
            return "given up"
        return "invalid" if self.status == 400 and content.error else "other"

    def __str__(self) -> str:
        return f"{self.status or 'no answer:'} {self.body.decode(errors='replace'):.100}"


class Client:
    """The server at a URL, for as many threads as there are connections, which are kept alive.

    Every method raises SimulationError once nothing has been answered for `patience_seconds`.
    With a signing key each body is signed anew for each attempt.
    """

    def __init__(
        self,
        url: str,
        connections: int,
        patience_seconds: float,
        signing_key: bytes | None = None,
        api_key: str = "",
    ) -> None:
        self._url = urllib.parse.urlsplit(url.rstrip("/"))
        self._patience_seconds = patience_seconds
        self._signing_key = signing_key
        self._api_key = api_key
        self._silent_since: float | None = None
        secure = self._url.scheme == "https"
        connection = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._idle = [  # and since when; a list's append and pop are atomic
            (connection(self._url.netloc, timeout=ATTEMPT_SECONDS_MAX), 0.0) for _ in range(connections)
        ]

    def ask(self, path: str, attempts_max: int = ATTEMPTS_MAX) -> ResponseBody:
        """What is to be read at this path, empty for a proper 404; raises SimulationError for all else."""
        answer = self.insist("GET", path, None, attempts_max)
        content = answer.content
        if content and (answer.status == 200 or (answer.status == 404 and content.error)):
            return content
        raise SimulationError(f"GET {self._url.geturl()}{path}: {answer}")

    def insist(
        self, method: str, path: str, body: bytes | None, attempts_max: int = ATTEMPTS_MAX
    ) -> Response:
        """Send until somebody answers, with pauses as a bank makes; return the last attempt's answer."""
        answer = self._attempt(method, path, body)
        while answer.status in RETRYABLE and answer.attempts < attempts_max:
            asked_for = answer.retry_after
            seconds = int(asked_for) if asked_for.isdecimal() else 0.05 * 2**answer.attempts
            time.sleep(min(seconds, PAUSE_SECONDS_MAX))
            answer = replace(self._attempt(method, path, body), attempts=answer.attempts + 1)
        return answer

    def close(self) -> None:
        for connection, _ in self._idle:
            connection.close()

    def _attempt(self, method: str, path: str, body: bytes | None) -> Response:
        if self._silent_since and time.monotonic() - self._silent_since > self._patience_seconds:
            raise SimulationError(f"{self._url.geturl()} has stopped answering")
        connection, used_at = self._idle.pop()
        if time.monotonic() - used_at > IDLE_SECONDS_MAX:
            connection.close()  # a server drops idle connections, perhaps in this very moment
        try:
            connection.request(method, self._url.path + path, body, self._headers(body))
            response = connection.getresponse()
            told = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self._silent_since = self._silent_since or time.monotonic()
            return Response(NO_RESPONSE, str(error).encode())
        finally:
            self._idle.append((connection, time.monotonic()))
        self._silent_since = None
        return Response(response.status, told, _content(told), response.getheader("Retry-After", ""))

    def _headers(self, body: bytes | None) -> dict[str, str | bytes]:
        headers: dict[str, str | bytes] = {"Content-Type": "application/json"}
        if body is None and self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        if body is not None and self._signing_key:
            webhook_id = hashlib.sha256(body).hexdigest()  # the same for each attempt
            timestamp = str(int(time.time()))
            headers |= {"webhook-id": webhook_id, "webhook-timestamp": timestamp}
            headers["webhook-signature"] = signatures.signature(
                self._signing_key, webhook_id, timestamp, body
            )
        return headers


def _content(body: bytes) -> ResponseBody | None:
    try:
        return msgspec.convert(json.loads(body, parse_float=Decimal), ResponseBody, builtin_types=(Decimal,))
    except ValueError:
        return None
