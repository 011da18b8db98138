"""The document of the API, OpenAPI 3.1, built from the types that the views read and answer; and its page.

docs/architecture.md tells the rules behind it. Each example is what the view answers, and a test asks it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import cache_control
from django.views.decorators.http import condition

from core.http import RETRY_AFTER_SECONDS, Error, json_response, json_view
from ingest.parsing import BankWebhook
from ingest.schemas import DeliveryAck, OperationStatus
from ingest.views import BODY_BYTES_MAX, CHALLENGE
from ledger.inn import PATTERN as INN_PATTERN
from ledger.money import rubles
from ledger.schemas import Balance, History, HistoryEntry
from ledger.views import HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX
from web.health import Healthy

FRESH_SECONDS = 300  # how long a reader may keep the document without asking again

Json = dict[str, Any]

ABOUT = """\
A bank's webhooks become exact balances.

* **Send again** whatever was answered 503, or not at all: an operation is credited once, however often it
  comes.
* **Amounts are exact.** A sum of rubles is a JSON number, with its two decimals unless it is whole. Read it
  as a decimal: a float of 64 bits can't tell kopecks apart above 70 trillion.
* **Every answer is JSON**, and whatever is refused says why: `{"error": "…"}`.
"""

FIRST = UUID("ccf0a86d-041b-4991-bcf7-e2352f7b8a4a")
SECOND = UUID("5d1a54d4-8d2e-4a35-9a0c-b1a1bc0b6a52")
SAMPLE_INN = "1234567890"
SENT = {
    "A whole sum": {
        "operation_id": str(FIRST),
        "amount": 145000,
        "payer_inn": SAMPLE_INN,
        "document_number": "PAY-328",
        "document_date": "2024-04-27T21:00:00Z",
    },
    "A sum with kopecks, as a string": {
        "operation_id": str(SECOND),
        "amount": "100.50",
        "payer_inn": SAMPLE_INN,
        "document_number": "PAY-329",
        "document_date": "2024-04-28T12:30:00+03:00",
    },
}


def _moment(second: int, microsecond: int) -> datetime:
    return datetime(2026, 11, 22, 21, 0, second, microsecond, tzinfo=UTC)


NEWEST = HistoryEntry(
    amount=rubles(100_50),
    created_at=_moment(7, 654321),
    balance_after=rubles(145_100_50),
    seq=2,
    operation_id=SECOND,
    document_number="PAY-329",
    document_date=datetime(2024, 4, 28, 9, 30, tzinfo=UTC),
)
OLDEST = HistoryEntry(
    amount=rubles(145_000_00),
    created_at=_moment(0, 123456),
    balance_after=rubles(145_000_00),
    seq=1,
    operation_id=FIRST,
    document_number="PAY-328",
    document_date=datetime(2024, 4, 27, 21, tzinfo=UTC),
)


def _answers(when: str, examples: Mapping[str, msgspec.Struct], **headers: Json) -> Json:
    """A response: when it is given, what it says for instance, all of one type, and with which headers."""
    (kind,) = {type(example) for example in examples.values()}
    content = {"schema": _reference(kind), "examples": {name: {"value": examples[name]} for name in examples}}
    named = {name.replace("_", "-"): header for name, header in headers.items()}
    return {"description": when, "headers": named, "content": {"application/json": content}}


def _errors(when: str, *errors: str, **headers: Json) -> Json:
    return _answers(when, {error: Error(error) for error in errors}, **headers)


def _header(description: str, value: str) -> Json:
    return _header_like(description, {"const": value})


def _header_like(description: str, schema: Json) -> Json:
    return {"description": description, "required": True, "schema": {"type": "string", **schema}}


def _in_header(name: str, description: str) -> Json:
    return {"type": "apiKey", "in": "header", "name": name, "description": description}


def _reference(kind: type[msgspec.Struct]) -> Json:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _get(responses: Mapping[int, Json], parameters: tuple[Json, ...] = (), **about: str) -> Json:
    """A question: besides its own `responses` it can get those of every question."""
    ours = {405: _only("GET, HEAD", "use GET or HEAD"), **responses}
    told = {str(status): ours[status] for status in sorted(ours)}
    return {"get": {**_labels(about), "parameters": list(parameters), "responses": told}}


def _read(responses: Mapping[int, Json], parameters: tuple[Json, ...], **about: str) -> Json:
    """A question of a reader, who shows an API key."""
    guarded = _get(
        {400: MALFORMED, 401: NO_KEY, 429: IN_VAIN, 503: UNAVAILABLE, **responses},
        parameters,
        tag="Readers",
        **about,
    )
    guarded["get"]["security"] = [{"apiKey": []}]
    return guarded


def _labels(about: Mapping[str, str]) -> Json:
    return {"tags": [about["tag"]], **{name: text for name, text in about.items() if name != "tag"}}


def _only(methods: str, error: str) -> Json:
    return _errors("Another method", error, Allow=_header("The methods that will do", methods))


RETRY_AFTER = _header("Seconds until it is worth another try", str(RETRY_AFTER_SECONDS))
MALFORMED = _errors("No valid request, such as one for a foreign host name", "malformed request")
UNAVAILABLE = _errors(
    "Nothing is lost: ask again", "temporarily unavailable, please try again", Retry_After=RETRY_AFTER
)

MOMENT = {"type": "string", "format": "date-time", "pattern": "^[1-9][0-9]{3}-"}
NO_MOMENT = "must be an ISO 8601 date and time with an offset (in which + is written %2B)"
NO_KEY = _errors(
    "No key, or none that is valid",
    "a valid API key is needed",
    WWW_Authenticate=_header("How to ask", "Bearer"),
)
IN_VAIN = _errors(
    "Too many requests from there without a valid key, or for what isn't the key's",
    "too many failed requests",
    Retry_After=_header_like("Seconds until the next minute", {"pattern": "^[1-9][0-9]?$"}),
)
INN_IN_PATH = {
    "name": "inn",
    "in": "path",
    "required": True,
    "description": "The taxpayer number of the organization, 10 or 12 digits",
    "schema": {"type": "string", "pattern": INN_PATTERN},
    "example": SAMPLE_INN,
}
OPERATION_ID_IN_PATH = {
    "name": "operation_id",
    "in": "path",
    "required": True,
    "description": "The bank's UUID of the operation; any spelling that the door takes will do",
    "schema": {"type": "string", "format": "uuid"},
    "example": str(FIRST),
}
AT = {
    "name": "at",
    "in": "query",
    "description": "The balance at this instant, with what was posted in it; final if `settled` is true: "
    "at once where something was posted later, otherwise 10 minutes after the instant",
    "schema": MOMENT,
}
LIMIT = {
    "name": "limit",
    "in": "query",
    "description": f"How many entries; above {HISTORY_LIMIT_MAX} it means {HISTORY_LIMIT_MAX}",
    "schema": {"type": "integer", "minimum": 1, "default": HISTORY_LIMIT_DEFAULT},
}
BEFORE = {
    "name": "before",
    "in": "query",
    "description": "Only entries of a smaller `seq`: that of the last entry leads to the page of older ones",
    "schema": {"type": "integer", "minimum": 1},
}
AFTER = {
    "name": "after",
    "in": "query",
    "description": "Only entries of a larger `seq`: that of the first entry leads to the page of newer ones. "
    "Not together with `before`",
    "schema": {"type": "integer", "minimum": 1},
}
FROM = {"name": "from", "in": "query", "description": "Only what was posted since then", "schema": MOMENT}
TO = {
    "name": "to",
    "in": "query",
    "description": "Only what was posted before; final if `settled` is true",
    "schema": MOMENT,
}
NO_ORGANIZATION = _errors("No such organization, or none of this key's", "Organization not found")

BANK_WEBHOOK = {
    "post": {
        "tags": ["The bank"],
        "operationId": "deliver",
        "summary": "Deliver a payment",
        "description": "Stored durably before it is answered, and posted to the ledger soon after, exactly"
        f" once. At most {BODY_BYTES_MAX} bytes, with a Content-Length. The Content-Type is not insisted on."
        "\n\nThe bank shows that it is the bank by one of the schemes that were agreed on with it. It may"
        " have to come from a network of its own, or to send the JSON as a token signed by RS256 (RFC 7515).",
        "security": [
            {"webhookId": [], "webhookTimestamp": [], "webhookSignature": []},
            {"xSignature": []},
            {"basic": []},
            {"bearer": []},
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _reference(BankWebhook),
                    "examples": {name: {"value": SENT[name]} for name in SENT},
                }
            },
        },
        "responses": {
            "200": _answers(
                "It is stored, now or since an earlier delivery. If that had other terms nothing is posted, "
                "and both are shown to an admin",
                {
                    "The first time": DeliveryAck("success"),
                    "Whenever it comes again": DeliveryAck("already processed"),
                },
            ),
            "400": _errors(
                "It can never become valid; the delivery is kept and shown to an admin",
                "amount: must be greater than zero",
                "payer_inn: must be a string of exactly 10 or 12 digits",
                "document_date: is missing",
                "body: must be valid JSON",
            ),
            "401": _errors(
                "It isn't shown to be the bank's; nothing of it is stored",
                "not authorized",
                WWW_Authenticate=_header("The same for everybody", CHALLENGE),
            ),
            "405": _only("POST", "use POST"),
            "411": _errors("A chunked body, without a length", "Content-Length is required"),
            "413": _errors(
                "A body that is too long", f"body: must not be longer than {BODY_BYTES_MAX} bytes"
            ),
            "503": _errors(
                "It could not be stored, waited too long, or a setting of the server is wrong: send it again",
                "temporarily unavailable, please try again",
                "body: incomplete body, please send it again",
                "too busy, please send again",
                "not configured for this delivery yet, please send it again",
                Retry_After=RETRY_AFTER,
            ),
        },
    }
}


def _other_bank(name: str, source: str, media_type: str, schema: Json, security: list[Json]) -> Json:
    """The door of a bank that has words of its own; docs/banks.md tells them, and has examples."""
    ours: Json = BANK_WEBHOOK["post"]
    answers: dict[str, Json] = ours["responses"]
    return {
        "post": {
            "tags": ours["tags"],
            "operationId": f"deliver_{source}",
            "summary": f"Deliver what {name} tells of an operation",
            "description": "Its body is the bank's own, and read by the bank's documentation. What is known "
            "to be no payment to credit is answered `ignored`. What may be one, and is not recognized or "
            "names no INN to credit, is answered `unrecognized`, and kept until a person has processed it "
            "again or dismissed it. This endpoint exists when the bank's secrets are set.",
            "security": security,
            "requestBody": {"required": True, "content": {media_type: {"schema": schema}}},
            "responses": {status: _without_examples(told) for status, told in answers.items()},
        }
    }


def _without_examples(told: Json) -> Json:
    schema = told["content"]["application/json"]["schema"]
    return {**told, "content": {"application/json": {"schema": schema}}}


TOCHKA_WEBHOOK = _other_bank("Tochka Bank", "tochka", "text/plain", {"type": "string"}, [])
TBANK_WEBHOOK = _other_bank(
    "T-Bank", "tbank", "application/json", {"type": "object"}, [{"basic": []}, {"bearer": []}]
)
BALANCE = _read(
    {
        200: _answers(
            "What the organization has",
            {
                "A whole sum": Balance(SAMPLE_INN, rubles(145_000_00)),
                "A sum with kopecks": Balance(SAMPLE_INN, rubles(145_100_50)),
                "At an instant before the first payment": Balance(SAMPLE_INN, rubles(0), settled=True),
            },
        ),
        400: _errors(
            "A parameter that is no moment, or no valid request at all",
            f"at: {NO_MOMENT}",
            "malformed request",
        ),
        404: NO_ORGANIZATION,
    },
    (INN_IN_PATH, AT),
    operationId="balance",
    summary="The balance of an organization",
)
HISTORY = _read(
    {
        200: _answers("Its entries, newest first", {"Two payments": History(SAMPLE_INN, [NEWEST, OLDEST])}),
        400: _errors(
            "A parameter that is no number or moment, two that contradict each other, or no valid request",
            "limit: must be a positive whole number",
            "before, after: give one of them",
            f"from: {NO_MOMENT}",
            "malformed request",
        ),
        404: NO_ORGANIZATION,
    },
    (INN_IN_PATH, LIMIT, BEFORE, AFTER, FROM, TO),
    operationId="history",
    summary="How an organization came to its balance",
)
OPERATION = _read(
    {
        200: _answers(
            "Where the operation is",
            {
                "Stored": OperationStatus(FIRST, "received", _moment(0, 54321), None),
                "Posted": OperationStatus(FIRST, "applied", _moment(0, 54321), _moment(0, 123456)),
                "Given up, until an admin replays it": OperationStatus(
                    FIRST, "failed", _moment(0, 54321), None
                ),
                "Given up for good": OperationStatus(FIRST, "dismissed", _moment(0, 54321), None),
            },
        ),
        404: _errors("No such operation, or none of this key's", "Operation not found"),
    },
    (OPERATION_ID_IN_PATH,),
    operationId="operation",
    summary="Where an operation is",
    description="A payment is posted after the bank has heard 200. Who needs certainty asks here.",
)
HEALTHZ = _get(
    {200: _answers("It is up", {"Up": Healthy("ok")})},
    tag="Operators",
    operationId="healthz",
    summary="Whether the process is up",
    description="Touches nothing, so that a broken database gets no process restarted.",
)
READYZ = _get(
    {
        200: _answers("It is ready", {"Ready": Healthy("ok")}),
        503: _errors(
            "It is not",
            "migrations are missing: manage.py migrate",
            "temporarily unavailable, please try again",
            Retry_After={**RETRY_AFTER, "required": False},
        ),
    },
    tag="Operators",
    operationId="readyz",
    summary="Whether it should get requests",
    description="The database answers, and has every migration.",
)
PATHS = {
    "/api/webhook/bank/": BANK_WEBHOOK,
    "/api/webhook/tochka/": TOCHKA_WEBHOOK,
    "/api/webhook/tbank/": TBANK_WEBHOOK,
    "/api/organizations/{inn}/balance/": BALANCE,
    "/api/organizations/{inn}/balance/history/": HISTORY,
    "/api/operations/{operation_id}/": OPERATION,
    "/healthz": HEALTHZ,
    "/readyz": READYZ,
}
SECURITY = {
    "apiKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, for all organizations or for some; `manage.py apikey create` issues it. "
        "In development none is needed, unless READ_AUTH says so.",
    },
    "webhookId": _in_header("webhook-id", "Standard Webhooks: the id of the message, which is signed, too"),
    "webhookTimestamp": _in_header(
        "webhook-timestamp", "Standard Webhooks: when it was sent, in Unix seconds"
    ),
    "webhookSignature": _in_header(
        "webhook-signature",
        "Standard Webhooks: `v1,` and the base64 of the HMAC-SHA256 of `<id>.<timestamp>.<body>`; several "
        "are separated by spaces",
    ),
    "xSignature": _in_header("X-Signature", "The HMAC-SHA256 of the body, in hexadecimal digits"),
    "basic": {"type": "http", "scheme": "basic"},
    "bearer": {"type": "http", "scheme": "bearer", "description": "A token that the bank was given"},
}
TYPES = (BankWebhook, DeliveryAck, Balance, History, OperationStatus, Healthy, Error)


def document() -> Json:
    """The document; its examples are still what the views would answer with, for `answer` to encode."""
    _, schemas = msgspec.json.schema_components(TYPES, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {"title": "Prihod", "version": "1", "description": ABOUT},
        "servers": [{"url": "/"}],
        "security": [],  # of whatever says nothing else
        "tags": [{"name": name} for name in ("The bank", "Readers", "Operators")],
        "paths": PATHS,
        "components": {"schemas": _as_written(schemas), "securitySchemes": SECURITY},
    }


def _as_written(schema: Any) -> Any:
    """`schema` with rubles as the numbers that our answers hold; msgspec describes its default, a string."""
    if isinstance(schema, list):
        return [_as_written(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("anyOf") == [{"type": "integer"}, {"type": "string", "format": "decimal"}]:
        return {"type": "number", **{name: part for name, part in schema.items() if name != "anyOf"}}
    return {name: _as_written(part) for name, part in schema.items()}


@cache
def _encoded() -> tuple[bytes, str]:
    """The document's bytes and their ETag, which stay the same until the code changes."""
    written = json_response(document()).content
    return written, f'"{sha256(written).hexdigest()[:16]}"'


@json_view("GET", "HEAD")
@cache_control(public=True, max_age=FRESH_SECONDS)
@condition(etag_func=lambda _: _encoded()[1])
def openapi(request: HttpRequest) -> HttpResponse:
    return HttpResponse(_encoded()[0], content_type="application/json")


@json_view("GET", "HEAD")
def docs_page(request: HttpRequest) -> HttpResponse:
    """The document for people, the only HTML below /api/; it loads nothing from elsewhere."""
    return render(request, "api/docs.html")
