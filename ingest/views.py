"""The banks' webhook endpoints, and the status of an operation."""

import structlog
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse
from structlog.contextvars import bind_contextvars, get_contextvars

from api.authentication import NotFound, require_api_key
from api.models import ApiKey
from core.client_ip import client_ip, format_ip
from core.http import (
    INCOMPLETE,
    async_json_view,
    error_response,
    json_response,
    json_view,
    service_unavailable,
)
from ingest import arrivals, authentication, doorbell, misconfiguration
from ingest.banks.events import BankEvent, CreditEvent, IgnoredEvent, UnrecognizedEvent
from ingest.banks.registry import BankEndpoint
from ingest.exceptions import (
    BodyTooLong,
    InvalidDelivery,
    LengthRequired,
    Misconfigured,
    NotAuthorized,
    Overloaded,
)
from ingest.group_commit import group_commit
from ingest.inbox import Arrival, Delivery, Rejection, StoreResult
from ingest.metrics import instrumented
from ingest.models import Webhook
from ingest.schemas import AckStatus, DeliveryAck, OperationStatus
from ledger.operation_id import parse_operation_id

log = structlog.get_logger(__name__)

BODY_BYTES_MAX = 64 * 1024
LENGTH_DIGITS_MAX = len(str(BODY_BYTES_MAX))  # int() refuses thousands of digits
# RFC 9110 requires a challenge with each 401; this one is the same for every endpoint's credentials.
CHALLENGE = 'Basic realm="webhook", charset="UTF-8", Bearer realm="webhook"'


@instrumented
@async_json_view("POST")
async def webhook(request: HttpRequest, endpoint: BankEndpoint) -> HttpResponse:
    """Store a delivery; a worker posts it to the ledger.

    Answer 503 if our own settings prevent it: the delivery is valid, and the bank retries.
    """
    try:
        return await _receive(request, endpoint)
    except Misconfigured as exc:
        if misconfiguration.report(exc):  # else no thread, which a frozen database might hold
            await sync_to_async(_record)(request, exc)
        return service_unavailable("not configured for this delivery yet, please send it again")
    except Overloaded:
        return service_unavailable("too busy, please send again")
    except TimeoutError:
        log.error("delivery not stored in time", endpoint=endpoint.name)
        return service_unavailable("temporarily unavailable, please try again")


def _record(request: HttpRequest, exc: Misconfigured) -> None:
    if isinstance(request, ASGIRequest):  # under WSGI Django does so at each request
        close_old_connections()
    misconfiguration.record(exc)


async def _receive(request: HttpRequest, endpoint: BankEndpoint) -> HttpResponse:
    auth = authentication.auth_for(endpoint.name)
    try:
        length = body_length(request.META.get("CONTENT_LENGTH", ""))
    except LengthRequired:  # a chunked body arrives empty
        return error_response(411, "Content-Length is required")
    except BodyTooLong:
        return error_response(413, f"body: must not be longer than {BODY_BYTES_MAX} bytes")
    request.META["CONTENT_LENGTH"] = str(length)  # Django's int() refuses thousands of leading zeros
    address = client_ip(request)
    try:
        authentication.check_network(address, auth)
        delivery = Delivery(request.body, endpoint.name, format_ip(address))
        if len(delivery.body) < length:  # truncated in transit: the whole body may be valid
            authentication.log_denied(endpoint.name, "incomplete body", address)
            return service_unavailable(INCOMPLETE)
        payload = authentication.verified_payload(delivery.body, request, auth)
        misconfiguration.check_host(request)
        event = endpoint.read(payload)
    except NotAuthorized as exc:
        authentication.log_denied(endpoint.name, str(exc), address)
        return error_response(401, "not authorized", WWW_Authenticate=CHALLENGE)
    except InvalidDelivery as exc:
        await _store(request, Arrival(delivery, Rejection(str(exc)), b"", get_contextvars()))
        log.info("delivery rejected", endpoint=endpoint.name, reason=str(exc))
        return error_response(400, str(exc))
    return json_response(DeliveryAck(await _acknowledge(request, delivery, event, payload)))


def body_length(header: str) -> int:
    """Return the bytes that a Content-Length announces. Raise LengthRequired or BodyTooLong."""
    if not header.isdecimal():
        raise LengthRequired
    digits = header.lstrip("0") or "0"
    if len(digits) > LENGTH_DIGITS_MAX or int(digits) > BODY_BYTES_MAX:
        raise BodyTooLong
    return int(digits)


async def _acknowledge(
    request: HttpRequest, delivery: Delivery, event: BankEvent, payload: bytes
) -> AckStatus:
    if isinstance(event, CreditEvent):
        bind_contextvars(operation_id=str(event.terms.operation_id))
    result = await _store(request, Arrival(delivery, event, payload, get_contextvars()))
    if isinstance(event, UnrecognizedEvent):
        return "unrecognized"
    if isinstance(event, IgnoredEvent):
        log.debug("delivery ignored", endpoint=delivery.source, reason=event.reason)
        return "ignored"
    if result is not None:
        log.debug(
            "delivery stored", endpoint=delivery.source, result=result.value
        )  # INFO would cost too much
    if result is not StoreResult.CREATED:
        return "already processed"
    doorbell.ring()
    return "success"


async def _store(request: HttpRequest, arrival: Arrival) -> StoreResult | None:
    """Store with all that arrive at the same time, or under WSGI alone, in the request's thread."""
    if isinstance(request, ASGIRequest):
        return await group_commit.store(arrival)
    return await sync_to_async(arrivals.store_arrival)(arrival)


@json_view("GET", "HEAD")
@require_api_key
def operation_status(request: HttpRequest, key: ApiKey, operation_id: str) -> HttpResponse:
    """Return whether an operation is received, applied, failed or dismissed, if `key` may read its payer."""
    parsed = parse_operation_id(operation_id)
    webhook = (
        Webhook.objects.using(settings.READ_DATABASE).filter(operation_id=parsed).first() if parsed else None
    )
    if webhook is None or not key.may_read(webhook.payer_inn):
        raise NotFound("Operation not found")
    return json_response(
        OperationStatus(
            operation_id=webhook.operation_id,
            status=webhook.status,
            received_at=webhook.received_at,
            applied_at=webhook.applied_at,
        )
    )
