"""Verify the books, all of them or what is new since the last verification without drift; keep the result."""

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
DRIFTS_COUNTED_MAX = 10_000  # each costs some look-ups of its own
# Rows behind which those of a transaction may lie that had not ended when the last verification began.
OVERLAP_ROWS = 100_000
RESULTS_KEPT_MAX = 1000  # results


@dataclass(frozen=True)
class Result:
    verification: LedgerVerification  # not saved yet
    drifts: list[Drift]  # the first of them


def verify_ledger(progress: Progress, *, is_full: bool) -> Result:
    """Verify, to the end or to DRIFTS_COUNTED_MAX; all the books, too, if the last verification found drift.

    Raises django.db.DatabaseError.
    """
    begun, rows = time.monotonic(), Counter[str]()

    def count(what: str, looked_at: int) -> None:
        rows[what] += looked_at
        progress(what, looked_at)

    former = None if is_full else _former()
    ours = LedgerVerification(
        is_full=former is None,
        payments_to=_newest(Payment.objects.all()),
        entries_to=_newest(BalanceLog.objects.all()),
        webhooks_to=_newest(Webhook.objects.all()),
    )
    found = islice(_drifts(count, former), DRIFTS_COUNTED_MAX)
    drifts = list(islice(found, DRIFTS_SHOWN_MAX))
    ours.drifts_found = len(drifts) + sum(1 for _ in found)
    ours.drift = "\n".join(map(str, drifts))
    ours.rows_scanned = rows.total()
    ours.duration = timedelta(seconds=time.monotonic() - begun)
    return Result(ours, drifts)


def _former() -> LedgerVerification | None:
    """The last verification, if it says how far the books are right: after drift all are verified again."""
    last = LedgerVerification.objects.order_by("-pk").first()
    return last if last and not last.drift and last.entries_to else None


def save(result: Result) -> None:
    """For the dashboard, and for the next verification. Raises django.db.DatabaseError."""
    result.verification.save()
    LedgerVerification.objects.filter(pk__lte=result.verification.pk - RESULTS_KEPT_MAX).delete()


def _drifts(progress: Progress, former: LedgerVerification | None) -> Iterator[Drift]:
    if former is None:
        return chain(verify(progress), reconcile(progress))
    payments_after = former.payments_to - OVERLAP_ROWS
    new = verify_new(progress, former.entries_to - OVERLAP_ROWS, payments_after)
    webhooks_after = former.webhooks_to - OVERLAP_ROWS
    return chain(new, reconcile(progress, payments_after=payments_after, webhooks_after=webhooks_after))


def _newest(rows: QuerySet[Any]) -> int:
    return rows.aggregate(key=Max("pk"))["key"] or 0
