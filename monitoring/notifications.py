"""Send notifications by e-mail and by POST to chats or other programs, with a time-out per recipient."""

import base64
import http.client
import json
import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from urllib.parse import unquote, urlsplit

import structlog
from django.conf import settings
from django.core.mail import send_mail

from core.observability.redaction import exception_summary

log = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 10.0  # per response of a recipient; EMAIL_TIMEOUT is the mail server's


@dataclass(frozen=True)
class Notification:
    """The notification about one cause; its fields are the JSON that recipients get."""

    cause: str
    state: str  # "firing", "repeated", "resolved" or "test"
    severity: str
    text: str
    remedy: str
    started_at: str  # ISO 8601
    duration_seconds: int
    runbook: str = ""

    @property
    def summary(self) -> str:
        if self.state == "resolved" or not self.remedy:
            return self.text
        return f"{self.text}. Remedy: {self.remedy} ({self.runbook})"


def is_configured() -> bool:
    return bool(settings.ALERT_EMAILS or settings.ALERT_WEBHOOK_URL)


def send(batch: Sequence[Notification]) -> bool:
    """Send all in one message to every recipient; return whether any accepted it. Failures are logged."""
    accepted = [_post(url, batch) for url in settings.ALERT_WEBHOOK_URL]
    if settings.ALERT_EMAILS:
        accepted.append(_mail(batch))
    return any(accepted)


def _mail(batch: Sequence[Notification]) -> bool:
    subject = batch[0].text if len(batch) == 1 else f"{batch[0].text}, +{len(batch) - 1}"
    try:
        send_mail(
            "[Prihod] " + " ".join(subject.split()),
            "\n\n".join(one.summary for one in batch) + "\n",
            None,  # ALERT_FROM
            settings.ALERT_EMAILS,
        )
    except (OSError, smtplib.SMTPException, ValueError) as exc:  # ValueError: an invalid address
        log.warning("alert delivery failed", to="e-mail", error=exception_summary(exc))
        return False
    return True


def _post(url: str, batch: Sequence[Notification]) -> bool:
    """POST to the URL, which is a secret: only its host is logged."""
    host = urlsplit(url).hostname
    payload = {"text": "\n".join(one.summary for one in batch), "alerts": [asdict(one) for one in batch]}
    try:
        status = _status_of_post(url, json.dumps(payload, ensure_ascii=False).encode())
    except (OSError, http.client.HTTPException) as exc:
        log.warning("alert delivery failed", to=host, error=exception_summary(exc))
        return False
    if not 200 <= status < 300:  # a redirect might lead to an unintended recipient
        log.warning("alert delivery failed", to=host, status=status)
        return False
    return True


def _status_of_post(url: str, body: bytes) -> int:
    parts = urlsplit(url)
    host = parts.hostname or ""
    headers = {"Content-Type": "application/json"}
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"  # RFC 7617
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        tls = ssl.create_default_context()  # verifies the certificate and its host name
        connection = http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT_SECONDS, context=tls)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_SECONDS)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()
