"""Error reports to Sentry: unhandled exceptions of Django and Celery, and all logged errors.

A report contains no body, variables, headers or query string, and is redacted like a log line.
"""

import time
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, cast

import sentry_sdk
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from sentry_sdk.integrations.argv import ArgvIntegration
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.types import Event, Hint
from sentry_sdk.utils import BadDsn
from structlog.contextvars import get_contextvars

from core.observability.redaction import redact

# Per error and process: while the database is down every sweep and every request raises the same error.
DEDUPLICATION_SECONDS = 60.0
_reported: dict[tuple[object, ...], float] = {}  # time of the last report; one entry per place that fails


def configure_sentry(dsn: str, environment: str) -> None:
    """Initialize the SDK. The release is the SDK's own SENTRY_RELEASE, or the commit of a clone.

    Raise ImproperlyConfigured if the DSN is malformed.
    """
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


def report_view(
    view: Callable[..., Coroutine[Any, Any, HttpResponse]],
) -> Callable[..., Coroutine[Any, Any, HttpResponse]]:
    """Add the request to the reports of a view that Django's middleware doesn't reach."""

    @wraps(view)
    async def wrapper(request: HttpRequest, *args: Any) -> HttpResponse:
        url = f"{request.scheme}://{request.META.get('HTTP_HOST', '')}{request.path}"

        def add_request(event: Event, _: Hint) -> Event:
            return cast("Event", {**event, "request": {"method": request.method, "url": url}})

        with sentry_sdk.isolation_scope() as scope:
            scope.set_transaction_name(request.path)
            scope.add_event_processor(add_request)
            return await view(request, *args)

    return wrapper


def _scrub(event: Event, hint: Hint) -> Event | None:
    """Return the event as it may be sent, or None for a duplicate."""
    logged = _structlog_event(hint)
    if _is_duplicate(event, logged):
        return None
    if logged:
        event["logentry"] = {"message": logged.pop("event")}
        event["extra"] = logged
    event["tags"] = {**cast("dict[str, Any]", event.get("tags") or {}), **_ids()}
    if request := cast("dict[str, Any]", event.pop("request", None)):
        event["request"] = {name: request[name] for name in ("method", "url") if name in request}
    return cast("Event", redact(event))


def _structlog_event(hint: Hint) -> dict[str, Any]:
    """Return structlog's event dictionary if the event was logged by structlog, else an empty one."""
    message = getattr(hint.get("log_record"), "msg", None)
    return (
        {name: message[name] for name in message if name != "exc_info"} if isinstance(message, dict) else {}
    )


def _is_duplicate(event: Event, logged: dict[str, Any]) -> bool:
    exceptions = cast("dict[str, Any]", event.get("exception") or {}).get("values") or [{}]
    message = logged.get("event") or cast("dict[str, Any]", event.get("logentry") or {}).get("message")
    key = (event.get("logger"), event.get("transaction"), message, exceptions[-1].get("type"))
    now = time.monotonic()
    if now - _reported.get(key, -DEDUPLICATION_SECONDS) < DEDUPLICATION_SECONDS:
        return True
    _reported[key] = now
    return False


def _ids() -> dict[str, str]:
    return {name: value for name, value in get_contextvars().items() if isinstance(value, str)}
