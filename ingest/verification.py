"""Verifies the ledger in full or only what is new since the last verification without drift."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, islice
from typing import Any

from django.db.models import Max, QuerySet

from ingest.models import LedgerVerification, Webhook
from ingest.reconciliation import reconcile
from ledger.models import BalanceLog, Payment
from ledger.verification import Drift, Progress, verify, verify_new

DRIFTS_SHOWN_MAX = 100
DRIFTS_COUNTED_MAX = 10_000  # each costs some queries of its own
# Rows of a transaction that was still open when the last verification began may have lower keys than that
# verification's last row, by at most so many.
OVERLAP_ROWS = 100_000
RESULTS_KEPT_MAX = 1000


@dataclass(frozen=True)
class Result:
    verification: LedgerVerification  # unsaved
    drifts: list[Drift]  # the first DRIFTS_SHOWN_MAX


def verify_ledger(progress: Progress, *, is_full: bool) -> Result:
    """Verify to the end, or up to DRIFTS_COUNTED_MAX drifts. In full also after a verification with drift.

    Raise django.db.DatabaseError.
    """
    started_at, rows = time.monotonic(), Counter[str]()

    def count(what: str, scanned: int) -> None:
        rows[what] += scanned
        progress(what, scanned)

    previous = None if is_full else _previous()
    verification = LedgerVerification(
        is_full=previous is None,
        payments_to=_last_pk(Payment.objects.all()),
        entries_to=_last_pk(BalanceLog.objects.all()),
        webhooks_to=_last_pk(Webhook.objects.all()),
    )
    found = islice(_drifts(count, previous), DRIFTS_COUNTED_MAX)
    drifts = list(islice(found, DRIFTS_SHOWN_MAX))
    verification.drifts_found = len(drifts) + sum(1 for _ in found)
    verification.drift = "\n".join(map(str, drifts))
    verification.rows_scanned = rows.total()
    verification.duration = timedelta(seconds=time.monotonic() - started_at)
    return Result(verification, drifts)


def _previous() -> LedgerVerification | None:
    """Return the last verification if it proves the rows up to its keys; after drift it proves nothing."""
    last = LedgerVerification.objects.order_by("-pk").first()
    return last if last and not last.drift and last.entries_to else None


def save(result: Result) -> None:
    """Save the result for the dashboard and for the next verification. Raise django.db.DatabaseError."""
    result.verification.save()
    LedgerVerification.objects.filter(pk__lte=result.verification.pk - RESULTS_KEPT_MAX).delete()


def _drifts(progress: Progress, previous: LedgerVerification | None) -> Iterator[Drift]:
    if previous is None:
        return chain(verify(progress), reconcile(progress))
    payments_after = previous.payments_to - OVERLAP_ROWS
    new = verify_new(progress, previous.entries_to - OVERLAP_ROWS, payments_after)
    webhooks_after = previous.webhooks_to - OVERLAP_ROWS
    return chain(new, reconcile(progress, payments_after=payments_after, webhooks_after=webhooks_after))


def _last_pk(rows: QuerySet[Any]) -> int:
    return rows.aggregate(key=Max("pk"))["key"] or 0
