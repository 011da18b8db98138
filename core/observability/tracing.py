"""Traces of requests and tasks, sent to an OpenTelemetry collector by OTLP over HTTP.

The SDK reads its own variables for the endpoint, the sampling and everything else. Each process sets up
tracing for itself, because the exporting thread does not survive a fork.
"""

from collections.abc import Callable, Coroutine, Sequence
from functools import cache, wraps
from typing import Any

from celery.signals import worker_process_shutdown
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from structlog.contextvars import get_contextvars

from core.observability.redaction import redact

# URLs, whose query strings can hold search texts; the route remains.
DROPPED_ATTRIBUTES = {"http.url", "http.target", "url.full", "url.path", "url.query"}


def trace_requests() -> None:
    """Instrument Django. Call this before Django loads its middleware."""
    DjangoInstrumentor().instrument(tracer_provider=_provider(), response_hook=_add_ids)


def trace_view(
    route: str, view: Callable[..., Coroutine[Any, Any, HttpResponse]]
) -> Callable[..., Coroutine[Any, Any, HttpResponse]]:
    """Trace a view that Django's middleware doesn't reach."""
    tracer = _provider().get_tracer(__name__)

    @wraps(view)
    async def wrapper(request: HttpRequest) -> HttpResponse:
        name, parent = f"{request.method} {route}", extract(request.headers)
        with tracer.start_as_current_span(name, parent, SpanKind.SERVER) as span:
            response = await view(request)
            span.set_attributes({"http.method": str(request.method), "http.route": route})
            span.set_attribute("http.status_code", response.status_code)
            if response.status_code >= 500:
                span.set_status(StatusCode.ERROR)
            _add_ids(span, request, response)
        return response

    return wrapper


def trace_tasks(**_: object) -> None:
    provider = _provider()
    CeleryInstrumentor().instrument(tracer_provider=provider)  # type: ignore[no-untyped-call]
    # A pool process exits without running atexit handlers.
    worker_process_shutdown.connect(lambda **_: provider.shutdown(), weak=False)


@cache
def _provider() -> TracerProvider:
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: settings.OTEL_SERVICE_NAME}))
    provider.add_span_processor(BatchSpanProcessor(_RedactingExporter()))
    return provider


def _add_ids(span: Span, _: HttpRequest, __: HttpResponse) -> None:
    """Add the ids that join a trace with the logs."""
    span.set_attributes({f"prihod.{name}": str(value) for name, value in get_contextvars().items()})


class _RedactingExporter(OTLPSpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return super().export([_scrub(span) for span in spans])


def _scrub(span: ReadableSpan) -> ReadableSpan:
    """Return a redacted copy, because a finished span is immutable."""
    attributes = {
        name: value for name, value in (span.attributes or {}).items() if name not in DROPPED_ATTRIBUTES
    }
    events = [Event(one.name, redact(dict(one.attributes or {})), one.timestamp) for one in span.events]
    return ReadableSpan(
        name=redact(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=redact(attributes),
        events=events,
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code, redact(span.status.description)),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
