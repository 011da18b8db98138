"""One format for every log line: JSON in production, readable text in development."""

import logging
from typing import Any

import structlog

from core.log_throttle import LogThrottle
from core.observability.redaction import redact
from core.observability.url_credentials import redact_urls


def parse_level(name: str) -> str:
    """`name` in capitals, as logging wants it; raises LookupError when there is no such level."""
    if name.upper() not in logging.getLevelNamesMapping():
        raise LookupError(name)
    return name.upper()


class ThrottleFilter(logging.Filter):
    """Lines that a stranger can cause, at most one of each kind per core.log_throttle.EVERY_SECONDS.

    Requests that are malformed, for a foreign Host or without a CSRF token, 5xx answers, failed logins: none
    may fill the disk. What Django says of a stranger's request has no traceback, an error of ours has one.
    """

    LOGGERS = ("django.security.", "django.request", "gunicorn.error", "axes.", "core.http")

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
    """What of a line the code says, not the request: the kinds are few."""
    if record.name.startswith(("django.security.", "axes.")):  # the logger's name is enough
        return ()
    said = record.msg.get("event") if isinstance(record.msg, dict) else record.msg
    raised = record.exc_info[0] if record.exc_info else None
    return said, raised, getattr(record, "status_code", None)


def redact_event(_: Any, __: str, line: structlog.types.EventDict) -> structlog.types.EventDict:
    """The net below everything that is said anywhere: whoever needs a whole INN sets LOG_LEVEL=DEBUG."""
    if line.get("level") == "debug":
        return {name: redact_urls(value) if isinstance(value, str) else value for name, value in line.items()}
    return {name: redact(value) for name, value in line.items()}


def wrap_for_formatter(logger: Any, name: str, line: structlog.types.EventDict) -> tuple[Any, dict[str, Any]]:
    """To logging, as structlog does it; and with the exception, which other handlers may look for."""
    arguments, keywords = structlog.stdlib.ProcessorFormatter.wrap_for_formatter(logger, name, line)
    return arguments, {**keywords, "exc_info": line.get("exc_info")}


def configure(level: str, *, as_json: bool) -> dict[str, Any]:
    """Set structlog up and return the dictionary for Django's LOGGING.

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
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    # Plain, because rich's tracebacks print every local variable and cost half a second each.
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
            # A 404 is an answer, no trouble.
            "django.request": {"level": "ERROR"},
            # One line per task says nothing that the balance lines don't.
            "celery.app.trace": {"level": "WARNING"},
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.beat": {"level": "WARNING"},
            # Of Celery's pool. It has no handler of its own, and doesn't ask the root's.
            "multiprocessing": {"handlers": ["console"], "propagate": False},
            # In place of gunicorn's own handlers; its level, and whether there is an access log, it is told.
            "gunicorn.error": {"handlers": ["console"], "propagate": False},
            "gunicorn.access": {"handlers": ["console"], "propagate": False},
            # Failed logins and locks are warnings; the rest is its housekeeping.
            "axes": {"level": "WARNING"},
        },
    }
