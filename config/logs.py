"""One format for every log line: JSON in production, readable text in development."""

import logging
from typing import Any

import structlog

from config.masking import masked


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


def mask(_: Any, __: str, line: structlog.types.EventDict) -> structlog.types.EventDict:
    """The net below everything that is said anywhere: whoever needs a whole INN sets LOG_LEVEL=DEBUG."""
    if line.get("level") == "debug":
        return line
    return {name: masked(value) for name, value in line.items()}


def hand_over(logger: Any, name: str, line: structlog.types.EventDict) -> tuple[Any, dict[str, Any]]:
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
            hand_over,
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
                    mask,
                    renderer,
                ],
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
            # Of Celery's pool. It has no handler of its own, and doesn't ask the root's.
            "multiprocessing": {"handlers": ["console"], "propagate": False},
            # In place of gunicorn's own handlers; its level, and whether there is an access log, it is told.
            "gunicorn.error": {"handlers": ["console"], "propagate": False},
            "gunicorn.access": {"handlers": ["console"], "propagate": False},
            # Failed logins and locks are warnings; the rest is its housekeeping.
            "axes": {"level": "WARNING"},
        },
    }
