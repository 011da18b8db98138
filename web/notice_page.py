"""Error pages that need neither the database nor a session, either of which may have failed."""

from django.http import HttpResponse
from django.template.loader import render_to_string


def render_notice(response: HttpResponse, heading: str, sentence: str) -> HttpResponse:
    """Replace the response's content by an HTML page; its status and other headers remain."""
    response["Content-Type"] = "text/html; charset=utf-8"
    response.content = render_to_string("notice.html", {"heading": heading, "sentence": sentence})
    return response
