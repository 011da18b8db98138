"""The versions of an operation: what a delivery means, given those before it. A pure state machine.

A bank that corrects itself numbers the versions of an operation, and marks its deletion by the number
DELETED. The order of arrival is not that of the numbers, and after a restoration the version that came last
counts, although its number is lower than DELETED
(https://developers.sber.ru/docs/ru/sber-api/specifications/statement/wh-transactions).
"""

from collections.abc import Sequence
from typing import NamedTuple

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _

from ledger.terms import PaymentTerms

DELETED = 2**63 - 1
UNNUMBERED = -1  # of a webhook that was delivered without a version: lower than each version


class Decision(TextChoices):
    FIRST = "first", _("first version")
    CORRECTION = "correction", _("correction by the bank")
    DELETION = "deletion", _("deletion by the bank")
    REMEMBERED = "remembered", _("deletion of an unknown operation")
    STALE = "stale", _("older than a known version: not posted")
    # A late retry or a restoration, no one can tell: an operator decides.
    UNCLEAR = "unclear", _("restoration unclear")
    APPROVED = "approved", _("posted by an operator")
    # These two are no new versions.
    DUPLICATE = "duplicate", _("duplicate")
    CONFLICT = "conflict", _("conflict")


class Version(NamedTuple):
    """A version as recorded."""

    number: int
    terms: PaymentTerms
    decision: Decision


def decide(history: Sequence[Version], number: int, terms: PaymentTerms) -> Decision:
    """Return what the delivery of a version means after `history`, the versions in order of arrival."""
    deleted = is_deleted(history)
    if number == DELETED:
        return _decide_deletion(history, is_deleted_now=deleted)
    regular = {version.number: version for version in history if version.number != DELETED}
    if known := regular.get(number):
        if deleted and known.decision is not Decision.UNCLEAR:
            return Decision.UNCLEAR
        return Decision.DUPLICATE if known.terms == terms else Decision.CONFLICT
    if not regular:
        return Decision.UNCLEAR if deleted else Decision.FIRST
    return Decision.CORRECTION if number > max(regular) else Decision.STALE


def _decide_deletion(history: Sequence[Version], *, is_deleted_now: bool) -> Decision:
    if not history:
        return Decision.REMEMBERED
    if is_deleted_now:
        return Decision.DUPLICATE
    was_deleted = any(version.number == DELETED for version in history)
    return Decision.UNCLEAR if was_deleted else Decision.DELETION


def is_deleted(history: Sequence[Version]) -> bool:
    """Return whether the bank has deleted the operation, and neither it nor an operator restored it."""
    effective = [v for v in history if v.decision not in {Decision.STALE, Decision.UNCLEAR}]
    return bool(effective) and effective[-1].number == DELETED
