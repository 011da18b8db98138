"""Scenarios of versioned operations, played through the endpoint and the worker's task."""

from collections.abc import Sequence
from decimal import Decimal
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from django.test import Client

from ingest.models import ConflictingDelivery, DuplicateDelivery, OperationVersion
from ingest.version_storage import RESTORATION_UNCLEAR
from ingest.versions import Decision
from ledger.models import BalanceLog
from tests.factories import terms
from tests.payloads import payment_body
from worker import tasks

PATH = "/api/webhook/bank/"
_inns = count(10**9)  # payers of their own for each play


class Result(NamedTuple):
    lines_rubles: dict[str, list[Decimal]]  # by payer, in the order of its log
    notes: list[str]  # in the order of the deliveries


def differences(scenario: dict[str, Any]) -> list[str]:
    """Play a scenario with the worker after each delivery, and with the worker after all.

    Return what differs from the scenario's `lines_rubles` and `notes`.
    """
    lines = {
        payer: [Decimal(str(amount)) for amount in amounts]
        for payer, amounts in scenario["lines_rubles"].items()
    }
    wanted = Result({payer: amounts for payer, amounts in lines.items() if amounts}, scenario["notes"])
    found = []
    for name, between in [("worker after each delivery", True), ("worker after all", False)]:
        statuses, result = play(scenario["deliveries"], between=between)
        if set(statuses) - {200}:
            found.append(f"{name}: answers {statuses}")
        found += [
            f"{name}: {field} {_text(has)}, expected {_text(should)}"
            for field, has, should in zip(Result._fields, result, wanted, strict=True)
            if has != should
        ]
    return found


def play(deliveries: Sequence[dict[str, Any]], *, between: bool) -> tuple[list[int], Result]:
    """Deliver one operation's versions; return the answers' status codes, and what resulted."""
    operation_id = uuid4()
    inns = {payer: str(next(_inns)) for payer in dict.fromkeys(each["inn"] for each in deliveries)}
    statuses = []
    for each in deliveries:
        payment = terms(inn=inns[each["inn"]], operation_id=operation_id)
        statuses.append(post(payment_body(payment, amount=str(each["rubles"]), version=each["version"])))
        if between:
            tasks.apply_received()
    tasks.apply_received()
    return statuses, Result(
        {payer: log for payer, inn in inns.items() if (log := lines(inn))}, notes(operation_id)
    )


def post(body: bytes) -> int:
    return Client().post(PATH, body, content_type="application/json").status_code


def lines(inn: str) -> list[Decimal]:
    """Return the amounts of an organization's log, in rubles."""
    log = BalanceLog.objects.filter(organization__inn=inn).order_by("seq")
    return [Decimal(kopecks).scaleb(-2) for kopecks in log.values_list("amount_kopecks", flat=True)]


def notes(operation_id: UUID) -> list[str]:
    """Return what the deliveries of an operation that post nothing were taken for, in their order."""
    found = [
        (row.received_at, "duplicate")
        for row in DuplicateDelivery.objects.filter(webhook__operation_id=operation_id)
    ]
    for conflict in ConflictingDelivery.objects.filter(webhook__operation_id=operation_id):
        is_unclear = conflict.difference == RESTORATION_UNCLEAR
        found.append((conflict.received_at, RESTORATION_UNCLEAR if is_unclear else "conflict"))
    names = {Decision.STALE.value: "stale", Decision.UNCLEAR.value: RESTORATION_UNCLEAR}
    rows = OperationVersion.objects.filter(operation_id=operation_id, decision__in=names)
    found += [(row.received_at, names[row.decision]) for row in rows]
    return [note for _, note in sorted(found)]


def _text(value: object) -> str:
    if isinstance(value, dict):
        return str({key: [str(amount) for amount in amounts] for key, amounts in value.items()})
    return str(value)
