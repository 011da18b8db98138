"""Deliveries that this installation's own settings keep from being taken in.

The sender has made no mistake, so it is answered 503, after which banks send again, and operators are alerted
until the setting is right: banks differ in how often they retry (docs/banks.md).
"""

import re

import structlog
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest
from django.utils import timezone

from core.best_effort import best_effort_write
from core.log_throttle import LogThrottle
from ingest.exceptions import Misconfigured, Setting
from ingest.metrics import MISCONFIGURED
from ingest.models import Misconfiguration

log = structlog.get_logger(__name__)
throttle = LogThrottle()
_SANE_HOST = re.compile(r"[0-9A-Za-z._:\[\]-]{1,253}")


def check_host(request: HttpRequest) -> None:
    """Raise Misconfigured if ALLOWED_HOSTS lacks the Host that the sender calls."""
    try:
        request.get_host()
    except DisallowedHost:
        host = request.META.get("HTTP_HOST", "")
        detail = host if _SANE_HOST.fullmatch(host) else "a malformed name"
        raise Misconfigured(Setting.ALLOWED_HOSTS, detail) from None


def report(exc: Misconfigured) -> None:
    """Count it, and log and store it at most once per core.log_throttle.EVERY_SECONDS.

    Raise nothing where the database fails: the answer is 503 anyway.
    """
    MISCONFIGURED.labels(exc.setting).inc()
    suppressed = throttle.suppressed(exc.setting)
    if suppressed is None:
        return
    log.error(
        "delivery refused by misconfiguration", setting=exc.setting, detail=exc.detail, suppressed=suppressed
    )
    with best_effort_write("misconfiguration not recorded"):
        seen = {"detail": exc.detail, "seen_at": timezone.now()}
        if not Misconfiguration.objects.filter(setting=exc.setting).update(**seen):
            row = Misconfiguration(setting=exc.setting, **seen)
            Misconfiguration.objects.bulk_create([row], ignore_conflicts=True)
