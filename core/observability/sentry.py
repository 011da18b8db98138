"""Errors go to Sentry: what Django and Celery could not handle, and whatever is logged as an error.

A report holds no body, no variables, no headers and no query, and is masked as a log line is.
"""

import time
from typing import Any, cast

import sentry_sdk
from django.core.exceptions import ImproperlyConfigured
from sentry_sdk.integrations.argv import ArgvIntegration
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.types import Event, Hint
from sentry_sdk.utils import BadDsn
from structlog.contextvars import get_contextvars

from core.observability.redaction import redact

# Of the same error, in one process: while the database is away each sweep and each request has it.
AGAIN_AFTER_SECONDS = 60.0
_reported: dict[tuple[object, ...], float] = {}  # when; as many as there are places that fail


def configure_sentry(dsn: str, environment: str) -> None:
    """Raises ImproperlyConfigured. The release is Sentry's own SENTRY_RELEASE, or the commit of a clone."""
    try:
        sentry_sdk.init(
            dsn,
            environment=environment,
            integrations=[
                DjangoIntegration(signals_spans=False),
                CeleryIntegration(),
                LoggingIntegration(level=None),
            ],
            auto_enabling_integrations=False,
            disabled_integrations=[ArgvIntegration],
            send_default_pii=False,
            max_request_body_size="never",
            include_local_variables=False,
            max_breadcrumbs=0,
            auto_session_tracking=False,
            send_client_reports=False,
            before_send=_scrub,
        )
    except BadDsn:
        raise ImproperlyConfigured("SENTRY_DSN is malformed; see .env.example") from None


def _scrub(event: Event, hint: Hint) -> Event | None:
    line = _logged_line(hint)
    if _is_repeated(event, line):
        return None
    if line:
        event["logentry"] = {"message": line.pop("event")}
        event["extra"] = line
    event["tags"] = {**cast("dict[str, Any]", event.get("tags") or {}), **_ids()}
    if request := cast("dict[str, Any]", event.pop("request", None)):
        event["request"] = {name: request[name] for name in ("method", "url") if name in request}
    return cast("Event", redact(event))


def _logged_line(hint: Hint) -> dict[str, Any]:
    """What was logged, if it was by structlog, which hands it over as a dictionary."""
    line = getattr(hint.get("log_record"), "msg", None)
    return {name: line[name] for name in line if name != "exc_info"} if isinstance(line, dict) else {}


def _is_repeated(event: Event, line: dict[str, Any]) -> bool:
    raised = cast("dict[str, Any]", event.get("exception") or {}).get("values") or [{}]
    said = line.get("event") or cast("dict[str, Any]", event.get("logentry") or {}).get("message")
    place = (event.get("logger"), event.get("transaction"), said, raised[-1].get("type"))
    now = time.monotonic()
    if now - _reported.get(place, -AGAIN_AFTER_SECONDS) < AGAIN_AFTER_SECONDS:
        return True
    _reported[place] = now
    return False


def _ids() -> dict[str, str]:
    return {name: value for name, value in get_contextvars().items() if isinstance(value, str)}
