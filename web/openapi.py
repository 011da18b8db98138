"""The OpenAPI 3.1 document of the API, generated from the views' request and response types, and its page.

docs/architecture.md describes the API's rules. A test compares each example with the view's actual response.
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

from api.models import WRITE_STATEMENTS
from core.http import RETRY_AFTER_SECONDS, Error, json_response, json_view
from ingest.parsing import BankWebhook
from ingest.schemas import DeliveryAck, OperationStatus
from ingest.views import BODY_BYTES_MAX, CHALLENGE
from ledger.inn import PATTERN as INN_PATTERN
from ledger.money import rubles
from ledger.operation_id import reversal_id
from ledger.schemas import Balance, History, HistoryEntry
from ledger.views import HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX
from statements.reading import BODY_BYTES_MAX as STATEMENT_BYTES_MAX
from statements.schemas import ImportedStatement, RefusedStatement
from web.health import Healthy

CACHE_SECONDS = 300

Json = dict[str, Any]

DESCRIPTION = """\
Receives a bank's webhooks and serves exact balances.

* **Retry** after 503 or without a response. Deliveries are idempotent: each operation is credited once.
* **Amounts are exact.** An amount in rubles is a JSON number with two decimals, or none if it is whole. Parse
  it as a decimal: a 64-bit float can't represent every kopeck above 70 trillion.
* **Every response is JSON.** An error has a message: `{"error": "…"}`.
"""

FIRST = UUID("ccf0a86d-041b-4991-bcf7-e2352f7b8a4a")
SECOND = UUID("5d1a54d4-8d2e-4a35-9a0c-b1a1bc0b6a52")
SAMPLE_INN = "1234567890"
SAMPLE_DELIVERIES = {
    "Whole rubles": {
        "operation_id": str(FIRST),
        "amount": 145000,
        "payer_inn": SAMPLE_INN,
        "document_number": "PAY-328",
        "document_date": "2024-04-27T21:00:00Z",
    },
    "Rubles and kopecks, as a string": {
        "operation_id": str(SECOND),
        "amount": "100.50",
        "payer_inn": SAMPLE_INN,
        "document_number": "PAY-329",
        "document_date": "2024-04-28T12:30:00+03:00",
    },
}


def _time(second: int, microsecond: int) -> datetime:
    return datetime(2026, 11, 22, 21, 0, second, microsecond, tzinfo=UTC)


NEWEST = HistoryEntry(
    amount=rubles(100_50),
    created_at=_time(7, 654321),
    balance_after=rubles(145_100_50),
    seq=2,
    operation_id=SECOND,
    document_number="PAY-329",
    document_date=datetime(2024, 4, 28, 9, 30, tzinfo=UTC),
)
OLDEST = HistoryEntry(
    amount=rubles(145_000_00),
    created_at=_time(0, 123456),
    balance_after=rubles(145_000_00),
    seq=1,
    operation_id=FIRST,
    document_number="PAY-328",
    document_date=datetime(2024, 4, 27, 21, tzinfo=UTC),
)


REVERSAL = HistoryEntry(
    amount=rubles(-100_50),
    created_at=_time(9, 111111),
    balance_after=rubles(145_000_00),
    seq=3,
    operation_id=reversal_id(SECOND),
    document_number="PAY-329",
    document_date=datetime(2024, 4, 28, 9, 30, tzinfo=UTC),
    reverses=SECOND,
)


def _response(when: str, examples: Mapping[str, msgspec.Struct], **headers: Json) -> Json:
    """Document a response: its condition, examples of one type, and its headers."""
    (kind,) = {type(example) for example in examples.values()}
    content = {"schema": _reference(kind), "examples": {name: {"value": examples[name]} for name in examples}}
    named = {name.replace("_", "-"): header for name, header in headers.items()}
    return {"description": when, "headers": named, "content": {"application/json": content}}


def _bare(when: str, kind: type[msgspec.Struct]) -> Json:
    """Document a response by its type alone."""
    return {"description": when, "headers": {}, "content": {"application/json": {"schema": _reference(kind)}}}


def _errors(when: str, *errors: str, **headers: Json) -> Json:
    return _response(when, {error: Error(error) for error in errors}, **headers)


def _header(description: str, value: str) -> Json:
    return _header_with_schema(description, {"const": value})


def _header_with_schema(description: str, schema: Json) -> Json:
    return {"description": description, "required": True, "schema": {"type": "string", **schema}}


def _header_auth(name: str, description: str) -> Json:
    return {"type": "apiKey", "in": "header", "name": name, "description": description}


def _reference(kind: type[msgspec.Struct]) -> Json:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _get(responses: Mapping[int, Json], parameters: tuple[Json, ...] = (), **about: str) -> Json:
    """Document a GET operation; the 405 response is added to its `responses`."""
    all_responses = {405: _only("GET, HEAD", "use GET or HEAD"), **responses}
    documented = {str(status): all_responses[status] for status in sorted(all_responses)}
    return {"get": {**_labels(about), "parameters": list(parameters), "responses": documented}}


def _read(responses: Mapping[int, Json], parameters: tuple[Json, ...], **about: str) -> Json:
    """Document a GET operation that requires an API key."""
    item = _get(
        {400: MALFORMED, 401: NO_KEY, 429: THROTTLED, 503: UNAVAILABLE, **responses},
        parameters,
        tag="Readers",
        **about,
    )
    item["get"]["security"] = [{"apiKey": []}]
    return item


def _labels(about: Mapping[str, str]) -> Json:
    return {"tags": [about["tag"]], **{name: text for name, text in about.items() if name != "tag"}}


def _only(methods: str, error: str) -> Json:
    return _errors("Method not allowed", error, Allow=_header("The allowed methods", methods))


RETRY_AFTER = _header("Seconds to wait before the retry", str(RETRY_AFTER_SECONDS))
MALFORMED = _errors("Malformed request, such as one with an unknown Host", "malformed request")
UNAVAILABLE = _errors(
    "Temporary failure; retry", "temporarily unavailable, please try again", Retry_After=RETRY_AFTER
)

DATE_TIME = {"type": "string", "format": "date-time", "pattern": "^[1-9][0-9]{3}-"}
NO_DATE_TIME = "must be an ISO 8601 date and time with an offset (in which + is written %2B)"
NO_KEY = _errors(
    "API key missing or invalid",
    "a valid API key is needed",
    WWW_Authenticate=_header("The authentication scheme", "Bearer"),
)
THROTTLED = _errors(
    "Too many requests without a valid key, or for objects that the key can't read",
    "too many failed requests",
    Retry_After=_header_with_schema("Seconds until the next minute", {"pattern": "^[1-9][0-9]?$"}),
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
    "description": "The bank's UUID of the operation, in any form that a delivery may have",
    "schema": {"type": "string", "format": "uuid"},
    "example": str(FIRST),
}
AT = {
    "name": "at",
    "in": "query",
    "description": "The balance after all payments posted up to this time. It is final if `settled` is true: "
    "as soon as a later payment is posted, and 10 minutes after this time at the latest",
    "schema": DATE_TIME,
}
LIMIT = {
    "name": "limit",
    "in": "query",
    "description": f"Maximum number of entries; values above {HISTORY_LIMIT_MAX} mean {HISTORY_LIMIT_MAX}",
    "schema": {"type": "integer", "minimum": 1, "default": HISTORY_LIMIT_DEFAULT},
}
BEFORE = {
    "name": "before",
    "in": "query",
    "description": "Only entries with a smaller `seq`; the last entry's `seq` leads to older ones",
    "schema": {"type": "integer", "minimum": 1},
}
AFTER = {
    "name": "after",
    "in": "query",
    "description": "Only entries with a larger `seq`; the first entry's `seq` leads to newer ones. "
    "Excludes `before`",
    "schema": {"type": "integer", "minimum": 1},
}
FROM = {
    "name": "from",
    "in": "query",
    "description": "Only entries posted at or after this time",
    "schema": DATE_TIME,
}
TO = {
    "name": "to",
    "in": "query",
    "description": "Only entries posted before this time; final if `settled` is true",
    "schema": DATE_TIME,
}
NO_ORGANIZATION = _errors("Organization unknown or not visible to this key", "Organization not found")

BANK_WEBHOOK = {
    "post": {
        "tags": ["Banks"],
        "operationId": "deliver",
        "summary": "Deliver a payment",
        "description": "The delivery is stored durably before the response, and posted to the ledger exactly"
        f" once soon after. At most {BODY_BYTES_MAX} bytes, with a Content-Length; any Content-Type will do."
        "\n\nThe bank authenticates by one of the configured schemes. The configuration can also restrict the"
        " networks that it delivers from, or require the JSON as a token signed with RS256 (RFC 7515).",
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
                    "examples": {name: {"value": sent} for name, sent in SAMPLE_DELIVERIES.items()},
                }
            },
        },
        "responses": {
            "200": _response(
                "The operation is stored, by this delivery or an earlier one. A duplicate with other terms "
                "is not posted but shown to an operator",
                {"First delivery": DeliveryAck("success"), "Duplicate": DeliveryAck("already processed")},
            ),
            "400": _errors(
                "The delivery is invalid and must not be retried; it is stored and shown to an operator",
                "amount: must be greater than zero",
                "payer_inn: must be a string of exactly 10 or 12 digits",
                "document_date: is missing",
                "body: must be valid JSON",
            ),
            "401": _errors(
                "The delivery is not authenticated; nothing of it is stored",
                "not authorized",
                WWW_Authenticate=_header("The same for every client", CHALLENGE),
            ),
            "405": _only("POST", "use POST"),
            "411": _errors("Chunked body, without a Content-Length", "Content-Length is required"),
            "413": _errors("Body too long", f"body: must not be longer than {BODY_BYTES_MAX} bytes"),
            "503": _errors(
                "Storage failed, the server is overloaded or misconfigured: retry",
                "temporarily unavailable, please try again",
                "body: arrived incomplete, please send it again",
                "too busy, please send again",
                "not configured for this delivery yet, please send it again",
                Retry_After=RETRY_AFTER,
            ),
        },
    }
}


def _other_bank(name: str, source: str, media_type: str, schema: Json, security: list[Json]) -> Json:
    """Document the endpoint of a bank with its own webhook format; docs/banks.md has examples."""
    post: Json = BANK_WEBHOOK["post"]
    responses: dict[str, Json] = post["responses"]
    return {
        "post": {
            "tags": post["tags"],
            "operationId": f"deliver_{source}",
            "summary": f"Deliver an event of {name}",
            "description": "The body has the bank's own format. An event that credits no payment is answered "
            "`ignored`. An event that may credit one but is not recognized is "
            "answered `unrecognized`, and stored until an operator processes it again or dismisses it. The "
            "endpoint exists if the bank's secrets are configured.",
            "security": security,
            "requestBody": {"required": True, "content": {media_type: {"schema": schema}}},
            "responses": {status: _without_examples(response) for status, response in responses.items()},
        }
    }


def _without_examples(response: Json) -> Json:
    schema = response["content"]["application/json"]["schema"]
    return {**response, "content": {"application/json": {"schema": schema}}}


TOCHKA_WEBHOOK = _other_bank("Tochka Bank", "tochka", "text/plain", {"type": "string"}, [])
TBANK_WEBHOOK = _other_bank(
    "T-Bank", "tbank", "application/json", {"type": "object"}, [{"basic": []}, {"bearer": []}]
)
BALANCE = _read(
    {
        200: _response(
            "The balance",
            {
                "Whole rubles": Balance(SAMPLE_INN, rubles(145_000_00)),
                "Rubles and kopecks": Balance(SAMPLE_INN, rubles(145_100_50)),
                "At a time before the first payment": Balance(SAMPLE_INN, rubles(0), settled=True),
            },
        ),
        400: _errors(
            "Malformed parameter or request",
            f"at: {NO_DATE_TIME}",
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
        200: _response(
            "The entries, newest first",
            {
                "Two payments": History(SAMPLE_INN, [NEWEST, OLDEST]),
                "A reversal": History(SAMPLE_INN, [REVERSAL, NEWEST, OLDEST]),
            },
        ),
        400: _errors(
            "Malformed or contradictory parameters, or malformed request",
            "limit: must be a positive whole number",
            "before, after: give one of them",
            f"from: {NO_DATE_TIME}",
            "malformed request",
        ),
        404: NO_ORGANIZATION,
    },
    (INN_IN_PATH, LIMIT, BEFORE, AFTER, FROM, TO),
    operationId="history",
    summary="The ledger entries of an organization",
)
OPERATION = _read(
    {
        200: _response(
            "The status of the operation",
            {
                "Stored": OperationStatus(FIRST, "received", _time(0, 54321), None),
                "Posted": OperationStatus(FIRST, "applied", _time(0, 54321), _time(0, 123456)),
                "Failed, until an operator replays it": OperationStatus(
                    FIRST, "failed", _time(0, 54321), None
                ),
                "Dismissed": OperationStatus(FIRST, "dismissed", _time(0, 54321), None),
                "Held as a suspected duplicate": OperationStatus(FIRST, "held", _time(0, 54321), None),
                "Posted from a bank statement before": OperationStatus(
                    FIRST, "merged", _time(0, 54321), None
                ),
            },
        ),
        404: _errors("Operation unknown or not visible to this key", "Operation not found"),
    },
    (OPERATION_ID_IN_PATH,),
    operationId="operation",
    summary="The status of an operation",
    description="A payment is posted after its delivery was acknowledged. This shows whether it has been.",
)
BANK_STATEMENTS = {
    "post": {
        "tags": ["Bank statements"],
        "operationId": "upload_bank_statement",
        "summary": "Upload a bank statement",
        "description": "The body is a file in the format 1CClientBankExchange (kl_to_1c.txt) as the bank "
        f"wrote it, at most {STATEMENT_BYTES_MAX} bytes. Nothing is posted, and the same bytes again change "
        "nothing. Needs an API key of the scope write:bank-statements.",
        "security": [{"apiKey": []}],
        "parameters": [
            {
                "name": "name",
                "in": "query",
                "description": "The file's name, for people",
                "schema": {"type": "string"},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        "responses": {
            "200": _bare("The same bytes were imported before", ImportedStatement),
            "201": _bare(
                "Imported and matched. Unless the verdict is ok, nothing can be posted from it before an"
                " operator accepts it",
                ImportedStatement,
            ),
            "400": _bare("Refused, with the line that is wrong; or a malformed request", RefusedStatement),
            "401": NO_KEY,
            "403": _without_examples(
                _errors("The key is for something else", f"this key lacks the scope {WRITE_STATEMENTS}")
            ),
            "405": _only("POST", "use POST"),
            "411": _without_examples(
                _errors("Chunked body, without a Content-Length", "Content-Length is required")
            ),
            "413": _without_examples(
                _errors("File too long", f"body: must not be longer than {STATEMENT_BYTES_MAX} bytes")
            ),
            "429": THROTTLED,
            "503": _without_examples(UNAVAILABLE),
        },
    }
}
HEALTHZ = _get(
    {200: _response("The process is up", {"Up": Healthy("ok")})},
    tag="Operators",
    operationId="healthz",
    summary="Liveness probe",
    description="Independent of the database, whose failure no restart would repair.",
)
READYZ = _get(
    {
        200: _response("The process is ready", {"Ready": Healthy("ok")}),
        503: _errors(
            "The process is not ready",
            "migrations are missing: manage.py migrate",
            "temporarily unavailable, please try again",
            Retry_After={**RETRY_AFTER, "required": False},
        ),
    },
    tag="Operators",
    operationId="readyz",
    summary="Readiness probe",
    description="Checks that the database is reachable and fully migrated.",
)
PATHS = {
    "/api/webhook/bank/": BANK_WEBHOOK,
    "/api/webhook/tochka/": TOCHKA_WEBHOOK,
    "/api/webhook/tbank/": TBANK_WEBHOOK,
    "/api/organizations/{inn}/balance/": BALANCE,
    "/api/organizations/{inn}/balance/history/": HISTORY,
    "/api/operations/{operation_id}/": OPERATION,
    "/api/bank-statements/": BANK_STATEMENTS,
    "/healthz": HEALTHZ,
    "/readyz": READYZ,
}
SECURITY = {
    "apiKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, for all organizations or for some; `manage.py apikey create` issues it. "
        "In development it is optional unless READ_AUTH=key is set.",
    },
    "webhookId": _header_auth(
        "webhook-id", "Standard Webhooks: the id of the message, part of the signed content"
    ),
    "webhookTimestamp": _header_auth(
        "webhook-timestamp", "Standard Webhooks: the time of sending, in Unix seconds"
    ),
    "webhookSignature": _header_auth(
        "webhook-signature",
        "Standard Webhooks: `v1,` and the base64 of the HMAC-SHA256 of `<id>.<timestamp>.<body>`; several "
        "signatures are separated by spaces",
    ),
    "xSignature": _header_auth("X-Signature", "The HMAC-SHA256 of the body, in hexadecimal digits"),
    "basic": {"type": "http", "scheme": "basic"},
    "bearer": {"type": "http", "scheme": "bearer", "description": "A token issued to the bank"},
}
TYPES = (
    *(BankWebhook, DeliveryAck, Balance, History, OperationStatus, Healthy, Error),
    *(ImportedStatement, RefusedStatement),
)


def document() -> Json:
    """Build the document; its examples are response objects, which `json_response` encodes."""
    _, schemas = msgspec.json.schema_components(TYPES, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {"title": "Prihod", "version": "1", "description": DESCRIPTION},
        "servers": [{"url": "/"}],
        "security": [],  # the default of operations
        "tags": [{"name": name} for name in ("Banks", "Readers", "Bank statements", "Operators")],
        "paths": PATHS,
        "components": {"schemas": _with_amounts_as_numbers(schemas), "securitySchemes": SECURITY},
    }


def _with_amounts_as_numbers(schema: Any) -> Any:
    """Replace the type of amounts by number, as in the responses; msgspec documents its default, a string."""
    if isinstance(schema, list):
        return [_with_amounts_as_numbers(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("anyOf") == [{"type": "integer"}, {"type": "string", "format": "decimal"}]:
        return {"type": "number", **{name: part for name, part in schema.items() if name != "anyOf"}}
    return {name: _with_amounts_as_numbers(part) for name, part in schema.items()}


@cache
def _encoded() -> tuple[bytes, str]:
    """Return the document's bytes and their ETag."""
    content = json_response(document()).content
    return content, f'"{sha256(content).hexdigest()[:16]}"'


@json_view("GET", "HEAD")
@cache_control(public=True, max_age=CACHE_SECONDS)
@condition(etag_func=lambda _: _encoded()[1])
def openapi(request: HttpRequest) -> HttpResponse:
    return HttpResponse(_encoded()[0], content_type="application/json")


@json_view("GET", "HEAD")
def docs_page(request: HttpRequest) -> HttpResponse:
    """Render the document, as the only HTML below /api/, without any external resource."""
    return render(request, "api/docs.html")
