"""Errors to Sentry and traces to OpenTelemetry: unless the environment asks for them, not even imported.

Both need packages that requirements/observing.txt has and requirements/base.txt hasn't.
"""

from importlib import import_module
from types import ModuleType

from celery.signals import worker_process_init
from django.core.exceptions import ImproperlyConfigured

SENTRY = "SENTRY_DSN"
TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT"


def configure(*, dsn: str, environment: str, traces: bool) -> None:
    """Report errors from here on; traces begin in each process that works, after its fork, as its threads do.

    Raises ImproperlyConfigured.
    """
    if dsn:
        import_extra(SENTRY, "core.observability.sentry").send_to(dsn, environment)
    if traces:
        tracing = import_extra(TRACES, "core.observability.tracing")
        worker_process_init.connect(tracing.trace_tasks, weak=False)


def import_extra(variable: str, module: str) -> ModuleType:
    """Raises ImproperlyConfigured where what it imports isn't installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        raise ImproperlyConfigured(
            f"{variable} is set, but {missing.name} isn't here; pip install -r requirements/observing.txt"
        ) from missing
