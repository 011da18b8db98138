"""What all baselines share with Prihod's endpoint: parse, respond, and report errors as plain JSON."""

from collections.abc import Callable

from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse

from core.http import View, error_response, json_response, json_view
from ingest.exceptions import InvalidDelivery
from ingest.parsing import parse
from ledger.terms import PaymentTerms

Handler = Callable[[PaymentTerms, bytes], None]


def make_view(handle: Handler) -> View:
    """Return a view that calls `handle` with the terms and the body.

    `handle` raises IntegrityError if the operation is processed already.
    """

    @json_view("POST")
    def bank_webhook(request: HttpRequest) -> HttpResponse:
        try:
            terms = parse(request.body)
        except InvalidDelivery as exc:
            return error_response(400, str(exc))
        try:
            handle(terms, request.body)
        except IntegrityError:
            return json_response({"status": "already processed"})
        return json_response({"status": "success"})

    return bank_webhook
