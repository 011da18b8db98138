"""How news gets to people: by e-mail, and by POST to a chat or another program. Nobody is waited for long."""

import base64
import http.client
import json
import smtplib
import ssl
from dataclasses import asdict, dataclass
from urllib.parse import unquote, urlsplit

import structlog
from django.conf import settings
from django.core.mail import send_mail

from core.observability.url_credentials import exception_summary

log = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 10.0  # of one answer of a receiver; EMAIL_TIMEOUT is the same for a mail server's


@dataclass(frozen=True)
class Notification:
    """About one cause; its fields are what a receiver is POSTed."""

    cause: str
    state: str  # "new", "still" or "over"; "test"
    level: str
    text: str
    remedy: str
    since: str  # ISO 8601
    seconds: int  # it lasts, or lasted
    runbook: str = ""  # where it says what to do

    @property
    def line(self) -> str:
        if self.state == "over" or not self.remedy:
            return self.text
        return f"{self.text}. To do: {self.remedy} ({self.runbook})"


def is_configured() -> bool:
    return bool(settings.ALERT_EMAILS or settings.ALERT_WEBHOOK_URL)


def send(news: list[Notification]) -> bool:
    """All of it in one message to everybody; whether anybody took it. Who didn't is named in the log."""
    duration = [_post(url, news) for url in settings.ALERT_WEBHOOK_URL]
    if settings.ALERT_EMAILS:
        duration.append(_mail(news))
    return any(duration)


def _mail(news: list[Notification]) -> bool:
    subject = news[0].text if len(news) == 1 else f"{news[0].text}, +{len(news) - 1}"
    try:
        send_mail(
            "[Prihod] " + " ".join(subject.split()),
            "\n\n".join(one.line for one in news) + "\n",
            None,  # ALERT_FROM
            settings.ALERT_EMAILS,
        )
    except (OSError, smtplib.SMTPException, ValueError) as fault:  # ValueError: an address that is none
        log.warning("alert delivery failed", to="e-mail", error=exception_summary(fault))
        return False
    return True


def _post(url: str, news: list[Notification]) -> bool:
    """The URL is a secret: no log line has more of it than the host."""
    host = urlsplit(url).hostname
    told = {"text": "\n".join(one.line for one in news), "alerts": [asdict(one) for one in news]}
    try:
        status = _status_of(url, json.dumps(told, ensure_ascii=False).encode())
    except (OSError, http.client.HTTPException) as fault:
        log.warning("alert delivery failed", to=host, error=exception_summary(fault))
        return False
    if not 200 <= status < 300:  # a redirection leads to somebody who wasn't meant
        log.warning("alert delivery failed", to=host, status=status)
        return False
    return True


def _status_of(url: str, body: bytes) -> int:
    parts = urlsplit(url)
    host = parts.hostname or ""
    headers = {"Content-Type": "application/json"}
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"  # RFC 7617
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        tls = ssl.create_default_context()  # asks for a certificate, and for the right name in it
        connection = http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT_SECONDS, context=tls)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_SECONDS)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()
