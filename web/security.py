"""The Content-Security-Policy header of pages."""

from http import HTTPStatus

from csp.middleware import CSPMiddleware
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from core.http import error_response


class CspHeaderMiddleware(CSPMiddleware):
    """django-csp without JSON responses, because building a policy for each delivery would slow it down.

    Below /api/ it replaces the HTML page for an unknown Host that Django serves with DEBUG=1 by the JSON
    error of DEBUG=0.
    """

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if response.get("Content-Type") == "application/json":
            return response
        if response.status_code == HTTPStatus.BAD_REQUEST and f"{request.path}/".startswith("/api/"):
            return error_response(HTTPStatus.BAD_REQUEST, "malformed request")
        return super().process_response(request, response)
