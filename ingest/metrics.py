"""What the door and the doorbell count for Prometheus."""

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse
from prometheus_client import Counter, Histogram

from core.observability import prometheus_multiprocess  # noqa: F401 decides, before any is made, where counts are kept
from ingest.exceptions import Setting

DELIVERIES = Counter("prihod_deliveries", "Deliveries, by the status of the answer", ["status"])
DELIVERY_DURATION = Histogram(
    "prihod_delivery_duration_seconds",
    "From a delivery's arrival in Django to its answer",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
MISCONFIGURED = Counter(
    "prihod_misconfigured_deliveries", "Deliveries answered 503 because of a setting of ours", ["setting"]
)
for _setting in Setting:  # exported as 0 from the start: increase() misses a series that begins with 1
    MISCONFIGURED.labels(_setting)
CONFLICTS = Counter("prihod_conflicting_deliveries", "Operations told again with other terms")
UNRECOGNIZED = Counter(
    "prihod_unrecognized_deliveries", "Deliveries kept because they may be money that no adapter recognizes"
)
RINGS = Counter("prihod_doorbell_rings", "Rings that the broker took, or had enough of")
RING_FAILURES = Counter("prihod_doorbell_ring_failures", "Rings that the broker did not take")


def instrumented(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Count the answers of `view`, and the time they took."""

    @wraps(view)
    def counting(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        begun = time.perf_counter()
        response = view(request, *args, **kwargs)
        DELIVERY_DURATION.observe(time.perf_counter() - begun)
        DELIVERIES.labels(response.status_code).inc()
        return response

    return counting
