"""The bank's door, and the question where an operation is."""

from django.http import HttpRequest, HttpResponse

from api.answers import answer, error, json_only, unavailable
from ingest import doorbell, inbox
from ingest.exceptions import InvalidDelivery
from ingest.metrics import counted
from ingest.models import Webhook
from ingest.parsing import parse, parse_operation_id

BODY_BYTES_MAX = 64 * 1024


@counted
@json_only("POST")
def bank_webhook(request: HttpRequest) -> HttpResponse:
    """Store the delivery and answer; a worker posts it to the ledger."""
    length = request.headers.get("Content-Length", "")
    if not length.isdecimal():  # a chunked body would reach us empty
        return error(411, "Content-Length is required")
    if int(length) > BODY_BYTES_MAX:
        return error(413, f"body: must not be longer than {BODY_BYTES_MAX} bytes")
    if len(request.body) < int(length):  # cut off on its way: whole, it may be valid
        return unavailable("body: arrived incomplete, please send it again")
    try:
        terms = parse(request.body)
    except InvalidDelivery as invalid:
        inbox.keep_rejected(request.body, reason=str(invalid))
        return error(400, str(invalid))
    stored = inbox.store(terms, request.body)
    if stored is not inbox.Stored.NEW:
        return answer({"status": "already processed"})
    doorbell.ring()
    return answer({"status": "success"})


@json_only("GET", "HEAD")
def operation(request: HttpRequest, operation_id: str) -> HttpResponse:
    """Whether an operation is received, applied, failed or dismissed."""
    try:
        webhook = Webhook.objects.filter(operation_id=parse_operation_id(operation_id)).first()
    except InvalidDelivery:
        webhook = None
    if webhook is None:
        return error(404, "Operation not found")
    return answer(
        {
            "operation_id": webhook.operation_id,
            "status": webhook.status,
            "received_at": webhook.received_at,
            "applied_at": webhook.applied_at,
        }
    )
