"""What all peers do as our door does it: parse, answer, and turn faults into plain JSON."""

from collections.abc import Callable

from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse

from core.http import View, error_response, json_response, json_view
from ingest.exceptions import InvalidDelivery
from ingest.parsing import parse
from ledger.terms import PaymentTerms

Take = Callable[[PaymentTerms, bytes], None]


def endpoint(take: Take) -> View:
    """A view that gives `take` the terms and the body, and answers. `take` raises IntegrityError when it
    has the operation already."""

    @json_view("POST")
    def bank_webhook(request: HttpRequest) -> HttpResponse:
        try:
            terms = parse(request.body)
        except InvalidDelivery as invalid:
            return error_response(400, str(invalid))
        try:
            take(terms, request.body)
        except IntegrityError:
            return json_response({"status": "already processed"})
        return json_response({"status": "success"})

    return bank_webhook
