"""One format for every log line: JSON in production, readable text in development."""

import logging
from typing import Any

import structlog


def level_named(name: str) -> str:
    """`name` in capitals, as logging wants it; raises LookupError when there is no such level."""
    if name.upper() not in logging.getLevelNamesMapping():
        raise LookupError(name)
    return name.upper()


class OneLine(logging.Filter):
    """Takes the traceback from what Django says of a stranger's request, such as a Host that nobody knows.

    It is no fault of ours, and with a page for each of them strangers could fill the disk.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("django.security."):
            record.exc_info = None
        return True


def configure(level: str, *, as_json: bool) -> dict[str, Any]:
    """Set structlog up and return the dictionary for Django's LOGGING.

    `level` is a name such as INFO. Lines of Django, Celery and gunicorn pass through the same
    formatter as ours, so that one parser reads them all.
    """
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if as_json else structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
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
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            },
        },
        "filters": {"one line": {"()": OneLine}},
        "handlers": {
            "console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["one line"]},
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
            # Failed logins and locks are warnings; the rest is its housekeeping.
            "axes": {"level": "WARNING"},
        },
    }
