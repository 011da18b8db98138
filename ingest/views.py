"""The banks' doors, and the question where an operation is."""

import structlog
from django.http import HttpRequest, HttpResponse
from structlog.contextvars import bind_contextvars

from api.authentication import NotFound, require_api_key
from api.models import ApiKey
from core import client_ip
from core.http import INCOMPLETE, error_response, json_response, json_view, service_unavailable
from ingest import authentication, doorbell, inbox, misconfiguration
from ingest.authentication import DeliveryAuth
from ingest.banks.events import BankEvent, IgnoredEvent, UnrecognizedEvent
from ingest.banks.registry import BankEndpoint
from ingest.exceptions import InvalidDelivery, Misconfigured, NotAuthorized
from ingest.metrics import instrumented
from ingest.models import Webhook
from ingest.schemas import DeliveryAck, OperationStatus
from ledger.operation_id import parse_operation_id

log = structlog.get_logger(__name__)

BODY_BYTES_MAX = 64 * 1024
LENGTH_DIGITS_MAX = len(str(BODY_BYTES_MAX))  # int() refuses thousands of digits
# RFC 9110 wants a challenge with each 401; this one is the same whatever is asked for.
CHALLENGE = 'Basic realm="webhook", charset="UTF-8", Bearer realm="webhook"'


@instrumented
@json_view("POST")
def webhook(request: HttpRequest, endpoint: BankEndpoint) -> HttpResponse:
    """One of the doors. What a setting of ours keeps from being taken in is no fault of the sender: 503."""
    try:
        return _authenticate(request, endpoint, authentication.auth_for(endpoint.name))
    except Misconfigured as exc:
        misconfiguration.report(exc)
        return service_unavailable("not configured for this delivery yet, please send it again")


def _authenticate(request: HttpRequest, endpoint: BankEndpoint, guard: DeliveryAuth) -> HttpResponse:
    """Store the delivery and answer; a worker posts it to the ledger."""
    length: str = request.META.get("CONTENT_LENGTH", "")
    if not length.isdecimal():  # a chunked body would reach us empty
        return error_response(411, "Content-Length is required")
    if len(length.lstrip("0")) > LENGTH_DIGITS_MAX or int(length) > BODY_BYTES_MAX:
        return error_response(413, f"body: must not be longer than {BODY_BYTES_MAX} bytes")
    try:
        authentication.check_network(request, guard)
        if len(request.body) < int(length):  # cut off on its way: whole, it may be valid
            authentication.log_denied(endpoint.name, "incomplete body", request)
            return service_unavailable(INCOMPLETE)
        payload = authentication.verified_payload(request, guard)
        misconfiguration.check_host(request)
        told = endpoint.read(payload)
    except NotAuthorized as reason:
        authentication.log_denied(endpoint.name, str(reason), request)
        return error_response(401, "not authorized", WWW_Authenticate=CHALLENGE)
    except InvalidDelivery as invalid:
        inbox.record_rejected(request.body, str(invalid), endpoint.name, client_ip.client_ip_text(request))
        log.info("delivery rejected", endpoint=endpoint.name, reason=str(invalid))
        return error_response(400, str(invalid))
    return _store(told, request.body, payload, endpoint, client_ip.client_ip_text(request))


def _store(
    told: BankEvent, body: bytes, payload: bytes, endpoint: BankEndpoint, address: str
) -> HttpResponse:
    if isinstance(told, UnrecognizedEvent):
        inbox.record_unrecognized(body, payload, told.reason, endpoint.name, address)
        return json_response(DeliveryAck("unrecognized"))
    if isinstance(told, IgnoredEvent):
        inbox.record_ignored(body, told.reason, endpoint.name, address)
        log.debug("delivery ignored", endpoint=endpoint.name, reason=told.reason)
        return json_response(DeliveryAck("ignored"))
    bind_contextvars(operation_id=str(told.terms.operation_id))
    stored = inbox.store(told.terms, body, endpoint.name, told.bank_reference, address)
    log.debug(
        "delivery stored", endpoint=endpoint.name, stored=stored.value
    )  # at INFO it would cost too much
    if stored is inbox.StoreResult.CREATED:
        doorbell.ring()
    return endpoint.acknowledge(stored)


@json_view("GET", "HEAD")
@require_api_key
def operation_status(request: HttpRequest, key: ApiKey, operation_id: str) -> HttpResponse:
    """Whether an operation is received, applied, failed or dismissed; for whoever may read its payer."""
    known = parse_operation_id(operation_id)
    webhook = Webhook.objects.filter(operation_id=known).first() if known else None
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
