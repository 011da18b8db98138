"""Operator actions that correct the posted payment of a webhook (ledger/corrections.py).

* reverse: take it back; restore: post it again
* replace: reverse it, and post it by the terms of the newest conflicting delivery
* assign: move it from suspense to an organization; unassign: move it back
"""

from collections.abc import Collection
from uuid import UUID

import structlog
from django.db import DataError, IntegrityError
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from ingest import version_storage
from ingest.banks.events import CreditEvent
from ingest.banks.registry import ENDPOINTS_BY_NAME, read_stored
from ingest.exceptions import InvalidDelivery, NotAuthorized
from ingest.inbox import Delivery
from ingest.models import ConflictingDelivery, OperatorAction, OperatorActionItem, Webhook
from ingest.versions import DELETED
from ledger import corrections
from ledger.exceptions import CorrectionRefused
from ledger.inn import SUSPENSE_PREFIX, is_suspense

log = structlog.get_logger(__name__)

# One per transaction: both its organizations are locked in order, and no other ones before.
CHUNK_WEBHOOKS = 1
Kind = OperatorAction.Kind
Outcome = OperatorActionItem.Outcome
KINDS = frozenset({Kind.REVERSE, Kind.RESTORE, Kind.REPLACE, Kind.ASSIGN, Kind.UNASSIGN})
STATES_READ_MAX = 1000  # operations by one query


def eligible(kind: Kind, webhooks: QuerySet[Webhook]) -> QuerySet[Webhook]:
    """Return those of `webhooks` that may be corrected; the ledger decides when the action runs."""
    applied = webhooks.filter(status=Webhook.Status.APPLIED)
    if kind in {Kind.ASSIGN, Kind.UNASSIGN}:
        return applied.filter(payer_inn__startswith=SUSPENSE_PREFIX)
    return applied


def states(webhook_ids: Collection[int]) -> list[tuple[UUID, int, bool]]:
    """Return what a confirmation of corrections is about: how the payment of each webhook stands now."""
    ordered = sorted(webhook_ids)
    found: list[tuple[UUID, int, bool]] = []
    for start in range(0, len(ordered), STATES_READ_MAX):
        webhooks = Webhook.objects.filter(id__in=ordered[start : start + STATES_READ_MAX])
        found += corrections.states(list(webhooks.values_list("operation_id", flat=True)))
    return found


def run(action: OperatorAction, webhook_ids: Collection[int]) -> dict[int, str]:
    """Correct the payments of these webhooks; return the outcome of each."""
    webhooks = Webhook.objects.filter(id__in=webhook_ids, status=Webhook.Status.APPLIED).in_bulk()
    return {
        key: _run(action, webhooks[key]) if key in webhooks else Outcome.REFUSED.value for key in webhook_ids
    }


def _run(action: OperatorAction, webhook: Webhook) -> str:
    """Carry out what was confirmed, or nothing; the conflicts of a refused replacement stay open."""
    resolved = ConflictingDelivery.objects.filter(webhook=webhook, resolved_by=action)
    conflict = resolved.order_by("id").last()
    try:
        decide = decision(Kind(action.kind), webhook, action.inn, conflict)
        corrections.correct(webhook.operation_id, corrections.unchanged_since(action.at, decide))
        if action.kind == Kind.REPLACE:
            _approve(webhook, conflict)
    except (
        CorrectionRefused,
        IntegrityError,
        DataError,
    ) as exc:  # the latter two if a balance would overflow
        log.warning("correction refused", action=action.pk, webhook=webhook.pk, error=str(exc))
        resolved.update(resolved_by=None)
        return Outcome.REFUSED
    return Outcome.DONE


def possible(webhook: Webhook) -> set[str]:
    """Return the kinds of corrections that the state of the webhook's payment allows now."""
    allowed = set()
    for kind in KINDS - {Kind.ASSIGN}:
        try:
            plan(kind, webhook, "")
        except CorrectionRefused:
            continue
        allowed.add(kind.value)
    return allowed | ({Kind.ASSIGN.value} if _waits_in_suspense(webhook) else set())


def _waits_in_suspense(webhook: Webhook) -> bool:
    try:
        payment = corrections.last_payment(webhook.operation_id)
    except CorrectionRefused:
        return False
    return is_suspense(payment.organization.inn) and not corrections.is_reversed(payment)


def plan(kind: Kind, webhook: Webhook, inn: str) -> corrections.Plan:
    """Return what the action would do to the webhook's payment now. Raise CorrectionRefused."""
    still_open = ConflictingDelivery.objects.filter(webhook=webhook, resolved_by=None)
    decide = decision(kind, webhook, inn, still_open.order_by("id").last())
    return corrections.plan(webhook.operation_id, decide)


def decision(
    kind: Kind, webhook: Webhook, inn: str, conflict: ConflictingDelivery | None
) -> corrections.Decide:
    match kind:
        case Kind.REPLACE:
            event = _event(conflict)
            is_deletion = event.version == DELETED
            return corrections.reversal if is_deletion else corrections.replacement(event.terms)
        case Kind.ASSIGN:
            return corrections.assignment(inn)
        case Kind.UNASSIGN:
            return corrections.return_to_suspense(webhook.operation_id)
        case Kind.RESTORE:
            return corrections.restoration
        case _:
            return corrections.reversal


def _approve(webhook: Webhook, conflict: ConflictingDelivery | None) -> None:
    """Record what was posted as the operation's version, so that the bank's next one corrects that."""
    event = _event(conflict)
    if conflict and event.version is not None:
        delivery = Delivery(bytes(conflict.body), conflict.source, conflict.client_ip)
        version_storage.approve(webhook, event.terms, event.version, delivery)


def _event(conflict: ConflictingDelivery | None) -> CreditEvent:
    """Read a conflicting delivery by today's adapter. Raise CorrectionRefused."""
    if conflict is None or conflict.source not in ENDPOINTS_BY_NAME:
        raise CorrectionRefused(_("there is no conflicting delivery to read the terms from"))
    try:
        event = read_stored(conflict.source, conflict.body)
    except (InvalidDelivery, NotAuthorized) as exc:
        raise CorrectionRefused(_("the conflicting delivery is unreadable")) from exc
    if not isinstance(event, CreditEvent):
        raise CorrectionRefused(_("the conflicting delivery is no payment"))
    return event
