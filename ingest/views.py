"""The banks' doors, and the question where an operation is."""

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from structlog.contextvars import bind_contextvars

from api import addresses
from api.answers import answer, error, json_only, unavailable
from api.models import ApiKey
from api.reading import NotFound, for_readers
from ingest import doorbell, doorkeeper, inbox
from ingest.answers import Operation, Taken
from ingest.banks.telling import Ignored, Meaning, Unrecognized
from ingest.doorkeeper import Guard
from ingest.doors import Door
from ingest.exceptions import InvalidDelivery, TurnedAway
from ingest.metrics import counted
from ingest.models import Webhook
from ledger.operation_id import as_operation_id

log = structlog.get_logger(__name__)

BODY_BYTES_MAX = 64 * 1024
# RFC 9110 wants a challenge with each 401; this one is the same whatever is asked for.
CHALLENGE = 'Basic realm="webhook", charset="UTF-8", Bearer realm="webhook"'


@counted
@json_only("POST")
def webhook(request: HttpRequest, door: Door) -> HttpResponse:
    """One of the doors; without a guard it is not there."""
    guard = settings.WEBHOOK_GUARDS.get(door.name)
    return _deliver(request, door, guard) if guard else error(404, "Not found")


def _deliver(request: HttpRequest, door: Door, guard: Guard) -> HttpResponse:
    """Store the delivery and answer; a worker posts it to the ledger."""
    length: str = request.META.get("CONTENT_LENGTH", "")
    if not length.isdecimal():  # a chunked body would reach us empty
        return error(411, "Content-Length is required")
    if int(length) > BODY_BYTES_MAX:
        return error(413, f"body: must not be longer than {BODY_BYTES_MAX} bytes")
    try:
        doorkeeper.check_network(request, guard)
        if len(request.body) < int(length):  # cut off on its way: whole, it may be valid
            log.info("delivery arrived incomplete", door=door.name)
            return unavailable("body: arrived incomplete, please send it again")
        payload = doorkeeper.verified_payload(request, guard)
        told = door.read(payload)
    except TurnedAway as reason:
        doorkeeper.complain(door.name, str(reason), request)
        return error(401, "not authorized", WWW_Authenticate=CHALLENGE)
    except InvalidDelivery as invalid:
        inbox.keep_rejected(request.body, str(invalid), door.name, addresses.text_of(request))
        log.info("delivery rejected", door=door.name, reason=str(invalid))
        return error(400, str(invalid))
    return _take_in(told, request.body, payload, door, addresses.text_of(request))


def _take_in(told: Meaning, body: bytes, payload: bytes, door: Door, address: str) -> HttpResponse:
    if isinstance(told, Unrecognized):
        inbox.keep_unrecognized(body, payload, told.reason, door.name, address)
        return answer(Taken("unrecognized"))
    if isinstance(told, Ignored):
        inbox.keep_ignored(body, told.reason, door.name, address)
        log.debug("delivery ignored", door=door.name, reason=told.reason)
        return answer(Taken("ignored"))
    bind_contextvars(operation_id=str(told.terms.operation_id))
    stored = inbox.store(told.terms, body, door.name, told.bank_id, address)
    log.debug("delivery stored", door=door.name, stored=stored.value)  # at INFO it would cost too much
    if stored is inbox.Stored.NEW:
        doorbell.ring()
    return door.acknowledge(stored)


@json_only("GET", "HEAD")
@for_readers
def operation(request: HttpRequest, key: ApiKey, operation_id: str) -> HttpResponse:
    """Whether an operation is received, applied, failed or dismissed; for whoever may read its payer."""
    known = as_operation_id(operation_id)
    webhook = Webhook.objects.filter(operation_id=known).first() if known else None
    if webhook is None or not key.may_read(webhook.payer_inn):
        raise NotFound("Operation not found")
    return answer(
        Operation(
            operation_id=webhook.operation_id,
            status=webhook.status,
            received_at=webhook.received_at,
            applied_at=webhook.applied_at,
        )
    )
