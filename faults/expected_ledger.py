"""The ledger that the inbox and the operators' actions require, computed by a single thread."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from tests.harness.bank_client import Attempt, DeliveredTerms
from tests.harness.procfile_stack import ProcfileStack

DELETED = 2**63 - 1  # the version by which the bank deletes an operation
VERSION = "version"


@dataclass(frozen=True)
class Action:
    """A correction whose item is done, or a later version of an operation that was acknowledged."""

    kind: str
    inn: str  # of an assignment
    terms: DeliveredTerms | None  # of the conflict that a replacement resolved, of a version; None if deleted

    @property
    def takes_back(self) -> bool:
        return self.kind == "reverse" or (self.kind == VERSION and self.terms is None)


@dataclass(frozen=True)
class Corrections:
    """What operators or the bank did, by operation in their order, and how the ledger links its payments."""

    done: Mapping[UUID, list[Action]]
    pending: int
    reversals: Mapping[UUID, UUID]  # the reversal of each reversed payment
    replacements: Mapping[UUID, UUID]  # the payment in place of each replaced one


@dataclass
class Ledger:
    """Payments and reversals by operation id, and kopecks by operation id by organization."""

    payments: dict[UUID, DeliveredTerms] = field(default_factory=dict)
    entries: dict[str, dict[UUID, int]] = field(default_factory=lambda: defaultdict(dict))
    violations: list[str] = field(default_factory=list)

    def add(self, terms: DeliveredTerms, sign: int = 1) -> None:
        self.payments[terms.operation_id] = terms
        self.entries[terms.inn][terms.operation_id] = sign * terms.amount_kopecks


def read_corrections(stack: ProcfileStack) -> Corrections:
    done = defaultdict(list)
    for operation_id, kind, inn, body in stack.sql(
        "SELECT w.operation_id, a.kind, a.inn, (SELECT body FROM ingest_conflictingdelivery c"
        " WHERE c.webhook_id = w.id AND c.resolved_by_id = a.id ORDER BY c.id DESC LIMIT 1)"
        " FROM ingest_operatoractionitem i JOIN ingest_operatoraction a ON a.id = i.action_id"
        " JOIN ingest_webhook w ON w.id = i.webhook_id"
        " WHERE i.outcome = 'done' AND a.kind IN ('reverse', 'replace', 'assign', 'unassign') ORDER BY i.id"
    ):
        done[UUID(operation_id)].append(Action(kind, inn, _terms(body) if body else None))
    pending = "SELECT COUNT(*) FROM ingest_operatoractionitem WHERE outcome = ''"
    reversed_by = (
        "SELECT p.operation_id, r.operation_id FROM ledger_payment r"
        " JOIN ledger_payment p ON p.id = r.reverses_id"
    )
    replaced_by = (
        "SELECT o.operation_id, p.operation_id FROM ledger_replacement r JOIN ledger_payment o"
        " ON o.id = r.replaced_id JOIN ledger_payment p ON p.id = r.payment_id"
    )
    return Corrections(
        done,
        int(stack.sql(pending)[0][0]),
        {UUID(original): UUID(reversal) for original, reversal in stack.sql(reversed_by)},
        {UUID(original): UUID(posted) for original, posted in stack.sql(replaced_by)},
    )


def _terms(body: bytes) -> DeliveredTerms:
    stated: dict[str, Any] = json.loads(body, parse_float=Decimal)
    kopecks = int(Decimal(str(stated["amount"])).scaleb(2))
    return DeliveredTerms(
        UUID(stated["operation_id"]), stated["payer_inn"], kopecks, stated["document_number"]
    )


def versions(history: Iterable[Attempt]) -> dict[UUID, list[Action]]:
    """Return the later versions that were acknowledged, by operation in their order."""
    numbers: dict[UUID, int] = {}
    done: dict[UUID, list[Action]] = defaultdict(list)
    for attempt in history:
        number, terms = attempt.delivery.version, attempt.delivery.terms
        if number is None or attempt.outcome != "ok" or number <= numbers.get(terms.operation_id, 1):
            continue
        numbers[terms.operation_id] = number
        done[terms.operation_id].append(Action(VERSION, "", None if number == DELETED else terms))
    return done


def expected_ledger(posted: Iterable[DeliveredTerms], corrections: Corrections) -> Ledger:
    """Post each operation, then carry out what was done to it."""
    ledger = Ledger()
    if corrections.pending:
        ledger.violations.append(f"operator actions: {corrections.pending} items are pending")
    for terms in posted:
        ledger.add(terms)
        _correct(ledger, terms, corrections)
    return ledger


def _correct(ledger: Ledger, original: DeliveredTerms, corrections: Corrections) -> None:
    payment, is_reversed = original, False
    for action in corrections.done.get(original.operation_id, ()):
        if not is_reversed:
            reversal = corrections.reversals.get(payment.operation_id)
            if reversal is None:
                ledger.violations.append(
                    f"corrections: {action.kind} of {payment} is done without a reversal"
                )
                return
            ledger.add(replace(payment, operation_id=reversal), -1)
        is_reversed = action.takes_back
        if is_reversed:
            continue
        posted = corrections.replacements.get(payment.operation_id)
        if posted is None:
            ledger.violations.append(f"corrections: {action.kind} of {payment} is done without a replacement")
            return
        payment = replace(TERMS_OF[action.kind](action, payment, original), operation_id=posted)
        ledger.add(payment)


TERMS_OF: dict[str, Callable[[Action, DeliveredTerms, DeliveredTerms], DeliveredTerms]] = {
    "assign": lambda action, payment, _: replace(payment, inn=action.inn),
    "unassign": lambda _, payment, original: replace(payment, inn=original.inn),
    "replace": lambda action, payment, _: action.terms or payment,
    VERSION: lambda action, payment, _: action.terms or payment,
}
