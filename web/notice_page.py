"""Pages of one sentence, which need neither the database nor a session: both may be what failed."""

from django.http import HttpResponse
from django.template.loader import render_to_string


def render_notice(answer: HttpResponse, heading: str, sentence: str) -> HttpResponse:
    """Give `answer` a page for people as its content; status and other headers stay."""
    answer["Content-Type"] = "text/html; charset=utf-8"
    answer.content = render_to_string("notice.html", {"heading": heading, "sentence": sentence})
    return answer
