"""Optional error reports to Sentry and traces to OpenTelemetry, imported only if configured.

Their packages are in requirements/observing.txt and not in requirements/base.txt.
"""

from collections.abc import Callable, Coroutine
from importlib import import_module
from types import ModuleType
from typing import Any

from celery.signals import worker_process_init
from django.core.exceptions import ImproperlyConfigured

View = Callable[..., Coroutine[Any, Any, Any]]
SENTRY = "SENTRY_DSN"
TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT"


def configure(*, dsn: str, environment: str, traces: bool) -> None:
    """Start error reports, and tracing in each pool process after its fork, as threads don't survive forks.

    Raise ImproperlyConfigured if a package is missing or the DSN malformed.
    """
    if dsn:
        import_extra(SENTRY, "core.observability.sentry").configure_sentry(dsn, environment)
    if traces:
        tracing = import_extra(TRACES, "core.observability.tracing")
        worker_process_init.connect(tracing.trace_tasks, weak=False)


def observe_view(view: View, route: str, *, dsn: str, traces: bool) -> View:
    """Return a coroutine that reports and traces as Django's middleware does."""
    if dsn:
        view = import_extra(SENTRY, "core.observability.sentry").report_view(view)
    if traces:
        view = import_extra(TRACES, "core.observability.tracing").trace_view(route, view)
    return view


def import_extra(variable: str, module: str) -> ModuleType:
    """Import `module`, which `variable` requires. Raise ImproperlyConfigured if a package is missing."""
    try:
        return import_module(module)
    except ModuleNotFoundError as exc:
        raise ImproperlyConfigured(
            f"{variable} is set, but {exc.name} isn't installed; pip install -r requirements/observing.txt"
        ) from exc
