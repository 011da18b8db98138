"""One format for every log line: JSON in production, readable text in development."""

import logging
from typing import Any

import structlog

from core.log_throttle import LogThrottle
from core.observability.redaction import redact, redact_urls


def parse_level(name: str) -> str:
    """Return the name of a log level in capitals. Raise LookupError if there is no such level."""
    if name.upper() not in logging.getLevelNamesMapping():
        raise LookupError(name)
    return name.upper()


class ThrottleFilter(logging.Filter):
    """Limit log lines that unauthenticated clients can cause to one per kind and log_throttle.EVERY_SECONDS.

    Malformed requests, unknown hosts, missing CSRF tokens, 5xx responses and failed logins must not fill the
    disk. Django's lines about suspicious requests lose their tracebacks; those of our errors keep them.
    """

    LOGGERS = (
        "django.security.",
        "django.request",
        "gunicorn.error",
        "uvicorn.error",
        "axes.",
        "core.http",
        "ingest.views",
    )

    def __init__(self) -> None:
        super().__init__()
        self._throttle = LogThrottle()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("django.security."):
            record.exc_info = None
        if record.levelno < logging.WARNING or not record.name.startswith(self.LOGGERS):
            return True
        suppressed = self._throttle.suppressed((record.name, _kind(record)))
        if suppressed and isinstance(record.msg, dict):
            record.msg = {**record.msg, "suppressed": suppressed}
        elif suppressed:
            record.msg = f"{record.msg} ({suppressed} more suppressed)"
        return suppressed is not None


def _kind(record: logging.LogRecord) -> tuple[object, ...]:
    """Return the parts of a record that the code chooses, not the request, so that there are few kinds."""
    if record.name.startswith(("django.security.", "axes.")):  # the logger's name is enough
        return ()
    message = record.msg.get("event") if isinstance(record.msg, dict) else record.msg
    exception = record.exc_info[0] if record.exc_info else None
    return message, exception, getattr(record, "status_code", None)


def redact_event(_: Any, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Redact an event of any logger. Complete INNs are available with LOG_LEVEL=DEBUG only."""
    if event.get("level") == "debug":
        return {
            name: redact_urls(value) if isinstance(value, str) else value for name, value in event.items()
        }
    return {name: redact(value) for name, value in event.items()}


def wrap_for_formatter(
    logger: Any, name: str, event: structlog.types.EventDict
) -> tuple[Any, dict[str, Any]]:
    """Pass the event to logging as structlog does, and keep exc_info for handlers such as Sentry's."""
    arguments, keywords = structlog.stdlib.ProcessorFormatter.wrap_for_formatter(logger, name, event)
    return arguments, {**keywords, "exc_info": event.get("exc_info")}


def configure(level: str, *, as_json: bool) -> dict[str, Any]:
    """Configure structlog and return the dictionary for Django's LOGGING.

    `level` is a name such as INFO. Lines of Django, Celery, gunicorn and warnings pass through the same
    formatter as ours, so that one parser reads them all.
    """
    logging.captureWarnings(capture=True)
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        # A call below the level costs next to nothing; the endpoint makes two for each delivery.
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    # Plain, because rich's tracebacks print every local variable and take half a second each.
    console = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    renderer = structlog.processors.JSONRenderer() if as_json else console
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": shared,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    redact_event,
                    renderer,
                ],
            },
        },
        "filters": {"throttled": {"()": ThrottleFilter}},
        "handlers": {
            "console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["throttled"]},
        },
        "root": {"handlers": ["console"], "level": level},
        "loggers": {
            "django": {"handlers": ["console"], "level": level, "propagate": False},
            "django.request": {"level": "ERROR"},  # a 404 is a regular response
            # One line per task adds nothing to the lines about posted payments.
            "celery.app.trace": {"level": "WARNING"},
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.beat": {"level": "WARNING"},
            # Celery's pool; its logger has no handler and does not propagate to the root's.
            "multiprocessing": {"handlers": ["console"], "propagate": False},
            # Instead of gunicorn's own handlers. gunicorn's settings choose the level and the access log.
            "gunicorn.error": {"handlers": ["console"], "propagate": False},
            "uvicorn.error": {"handlers": ["console"], "propagate": False},
            "gunicorn.access": {"handlers": ["console"], "propagate": False},
            "axes": {"level": "WARNING"},  # failed logins and lockouts, without its housekeeping
        },
    }
