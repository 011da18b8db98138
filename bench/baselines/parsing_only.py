"""Parse and respond, and store nothing: the upper limit for any design that stores something."""

from django.http import HttpRequest, HttpResponse

from core.http import async_json_view, error_response, json_response
from ingest.exceptions import InvalidDelivery
from ingest.parsing import parse


@async_json_view("POST")
async def bank_webhook(request: HttpRequest) -> HttpResponse:
    """Be called as Prihod's view is, by web.webhook_application."""
    try:
        parse(request.body)
    except InvalidDelivery as exc:
        return error_response(400, str(exc))
    return json_response({"status": "success"})
