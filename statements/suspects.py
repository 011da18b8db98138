"""Decide suspected duplicates by bank statements: which of two webhooks that look alike a statement shows.

Both: they are two payments, and a held one returns to the queue. One: the pair is marked, and stays open for
an operator.
"""

from django.db.models import Exists, OuterRef, Q, QuerySet

from ingest import suspected_duplicates
from ingest.models import SuspectedDuplicate
from statements import coverage
from statements.models import Match, MatchKey
from statements.posting_conditions import is_proven

_UNCOUNTED = MatchKey.State.NONE  # reversed, dismissed or merged


def decide_pairs() -> None:
    """Clear or mark the open pairs. The caller holds the locks of all own accounts, in a transaction."""
    undecided = SuspectedDuplicate.objects.filter(state=SuspectedDuplicate.State.OPEN)
    later, first = Q(_shown(OuterRef("webhook"))), Q(_shown(OuterRef("first")))
    two = undecided.filter(later, first | Q(first__match_key__state=_UNCOUNTED))
    proven = {pair.pk for pair in two if _is_proven(pair)}
    if proven:
        suspected_duplicates.clear(proven)
    _mark(undecided.filter(later & ~first | first & ~later))


def _shown(webhook: OuterRef) -> Exists:
    return Exists(Match.objects.filter(live=True, webhook=webhook))


def _is_proven(pair: SuspectedDuplicate) -> bool:
    matches = Match.objects.filter(live=True, webhook__in=(pair.webhook_id, pair.first_id))
    return all(is_proven(found.line) for found in matches.select_related("line"))


def _mark(one_shown: QuerySet[SuspectedDuplicate]) -> None:
    """Mark those whose other webhook's day proven statements of all own accounts cover."""
    for period in coverage.fully_covered_periods():
        days = (period.first, period.last)
        covered = one_shown.filter(
            webhook__match_key__day__range=days, first__match_key__day__range=days, is_shown_once=False
        )
        keys = list(covered.values_list("pk", flat=True))
        SuspectedDuplicate.objects.filter(pk__in=keys).update(is_shown_once=True)
