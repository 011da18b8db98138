"""An HTTP client that retries as banks do; it knows the server only by its HTTP interface."""

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
    """The simulation cannot continue; the message is one plain line."""


class HistoryEntry(msgspec.Struct):
    seq: int
    operation_id: str
    amount: Rubles
    balance_after: Rubles


class ResponseBody(msgspec.Struct):
    """The fields of all responses that the simulator reads; each response has only some of them."""

    error: str = ""
    status: str = ""
    balance: Rubles = 0
    history: list[HistoryEntry] = []


@dataclass(frozen=True, slots=True)
class Response:
    """The response to the last of `attempts`. `parsed` is None if the body is no JSON of the server's."""

    status: int
    body: bytes
    parsed: ResponseBody | None = None
    retry_after: str = ""
    attempts: int = 1

    @property
    def outcome(self) -> str:
        """Classify as a bank does: success, already processed, invalid, given up, or other."""
        parsed = self.parsed or ResponseBody()
        if self.status == 200 and parsed.status in ("success", "already processed"):
            return parsed.status
        if self.status in RETRYABLE:
            return "given up"
        return "invalid" if self.status == 400 and parsed.error else "other"

    def __str__(self) -> str:
        return f"{self.status or 'no response:'} {self.body.decode(errors='replace'):.100}"


class Client:
    """A client with a pool of kept-alive connections, one for each thread that uses it.

    Every method raises SimulationError after `timeout_seconds` without any response. With a signing key each
    attempt of a delivery is signed anew.
    """

    def __init__(
        self,
        url: str,
        connections: int,
        timeout_seconds: float,
        signing_key: bytes | None = None,
        api_key: str = "",
    ) -> None:
        self._url = urllib.parse.urlsplit(url.rstrip("/"))
        self._timeout_seconds = timeout_seconds
        self._signing_key = signing_key
        self._api_key = api_key
        self._failing_since: float | None = None
        is_https = self._url.scheme == "https"
        connection = http.client.HTTPSConnection if is_https else http.client.HTTPConnection
        self._idle = [  # with the time of the last use; a list's append and pop are atomic
            (connection(self._url.netloc, timeout=ATTEMPT_SECONDS_MAX), 0.0) for _ in range(connections)
        ]

    def get(self, path: str, attempts_max: int = ATTEMPTS_MAX) -> ResponseBody:
        """Return the body at `path`, empty for a 404. Raise SimulationError for any other response."""
        response = self.request("GET", path, None, attempts_max)
        parsed = response.parsed
        if parsed and (response.status == 200 or (response.status == 404 and parsed.error)):
            return parsed
        raise SimulationError(f"GET {self._url.geturl()}{path}: {response}")

    def request(
        self, method: str, path: str, body: bytes | None, attempts_max: int = ATTEMPTS_MAX
    ) -> Response:
        """Send, and retry with backoff while the response is RETRYABLE. Return the last response."""
        response = self._attempt(method, path, body)
        while response.status in RETRYABLE and response.attempts < attempts_max:
            retry_after = response.retry_after
            seconds = int(retry_after) if retry_after.isdecimal() else 0.05 * 2**response.attempts
            time.sleep(min(seconds, PAUSE_SECONDS_MAX))
            response = replace(self._attempt(method, path, body), attempts=response.attempts + 1)
        return response

    def close(self) -> None:
        for connection, _ in self._idle:
            connection.close()

    def _attempt(self, method: str, path: str, body: bytes | None) -> Response:
        if self._failing_since and time.monotonic() - self._failing_since > self._timeout_seconds:
            raise SimulationError(f"{self._url.geturl()} has stopped responding")
        connection, used_at = self._idle.pop()
        if time.monotonic() - used_at > IDLE_SECONDS_MAX:
            connection.close()  # the server may be closing an idle connection at this moment
        try:
            connection.request(method, self._url.path + path, body, self._headers(body))
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as exc:
            connection.close()
            self._failing_since = self._failing_since or time.monotonic()
            return Response(NO_RESPONSE, str(exc).encode())
        finally:
            self._idle.append((connection, time.monotonic()))
        self._failing_since = None
        return Response(response.status, content, _parse(content), response.getheader("Retry-After", ""))

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


def _parse(body: bytes) -> ResponseBody | None:
    try:
        return msgspec.convert(json.loads(body, parse_float=Decimal), ResponseBody, builtin_types=(Decimal,))
    except ValueError:
        return None
