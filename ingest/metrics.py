"""Prometheus metrics of the webhook endpoints and of the doorbell."""

import time
from functools import cache, wraps
from typing import Any

from django.http import HttpRequest, HttpResponse
from prometheus_client import Counter, Histogram

# Imported before any metric is created: it decides where values are stored.
from core.http import AsyncView
from core.observability import prometheus_multiprocess  # noqa: F401
from ingest.exceptions import Setting

DELIVERIES = Counter("prihod_deliveries", "Deliveries by response status", ["status"])
DELIVERY_DURATION = Histogram(
    "prihod_delivery_duration_seconds",
    "Time from a delivery's arrival in Django to its response",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
MISCONFIGURED = Counter(
    "prihod_misconfigured_deliveries", "Deliveries answered 503 because of a local setting", ["setting"]
)
for _setting in Setting:  # exported as 0 from the start: increase() misses a series that begins with 1
    MISCONFIGURED.labels(_setting)
CONFLICTS = Counter("prihod_conflicting_deliveries", "Deliveries of a known operation with other content")
UNRECOGNIZED = Counter(
    "prihod_unrecognized_deliveries", "Deliveries that may be money and that no adapter recognizes"
)
RINGS = Counter("prihod_doorbell_rings", "Rings that the broker took or did not need")
RING_FAILURES = Counter("prihod_doorbell_ring_failures", "Rings that the broker did not take")


_deliveries = cache(DELIVERIES.labels)  # by status; labels() formats its arguments each time


def instrumented(view: AsyncView) -> AsyncView:
    """Count the responses of `view` by status, and measure their duration."""

    @wraps(view)
    async def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        started_at = time.perf_counter()
        response = await view(request, *args, **kwargs)
        DELIVERY_DURATION.observe(time.perf_counter() - started_at)
        _deliveries(response.status_code).inc()
        return response

    return wrapper
