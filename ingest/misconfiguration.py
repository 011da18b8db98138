"""Deliveries that a setting of this installation prevents from being stored.

They are answered 503, so that the bank retries, and operators are alerted until the setting is fixed: banks
differ in how long they retry (docs/banks.md).
"""

import re

import structlog
from django.conf import settings
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
CACHED_HOSTS_MAX = 128  # a setting such as .example.org allows any number
_allowed_hosts: set[tuple[str | None, ...]] = set()  # Host, and the setting that allowed it
_SANE_HOST = re.compile(r"[0-9A-Za-z._:\[\]-]{1,253}")


def check_host(request: HttpRequest) -> None:
    """Raise Misconfigured if ALLOWED_HOSTS lacks the request's Host."""
    checked = request.META.get("HTTP_HOST"), *settings.ALLOWED_HOSTS
    if checked in _allowed_hosts:
        return
    try:
        request.get_host()
    except DisallowedHost:
        host = request.META.get("HTTP_HOST", "")
        detail = host if _SANE_HOST.fullmatch(host) else "a malformed name"
        raise Misconfigured(Setting.ALLOWED_HOSTS, detail) from None
    if len(_allowed_hosts) < CACHED_HOSTS_MAX:
        _allowed_hosts.add(checked)


def report(exc: Misconfigured) -> bool:
    """Count `exc`, and log it at most once per core.log_throttle.EVERY_SECONDS.

    Return whether it was logged and is to be recorded.
    """
    MISCONFIGURED.labels(exc.setting).inc()
    suppressed = throttle.suppressed(exc.setting)
    if suppressed is None:
        return False
    log.error(
        "delivery refused by misconfiguration", setting=exc.setting, detail=exc.detail, suppressed=suppressed
    )
    return True


def record(exc: Misconfigured) -> None:
    """Store `exc`. Raise nothing if the database fails: the response is 503 anyway."""
    with best_effort_write("misconfiguration not recorded"):
        seen = {"detail": exc.detail, "seen_at": timezone.now()}
        if not Misconfiguration.objects.filter(setting=exc.setting).update(**seen):
            row = Misconfiguration(setting=exc.setting, **seen)
            Misconfiguration.objects.bulk_create([row], ignore_conflicts=True)
