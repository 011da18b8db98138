"""Statements and operator actions for tests of the settlement."""

from datetime import UTC, date, datetime
from typing import Any

from django.contrib.auth.models import User
from django.db.models import QuerySet

from ingest import operator_actions
from ingest.models import OperatorAction, Webhook
from ingest.reconciliation import reconcile
from ledger.inn import UNKNOWN_ACCOUNT
from ledger.verification import verify
from statements import actions, buckets
from statements.buckets import Scope
from statements.importing import import_statement
from statements.matching import match
from statements.models import ActionItem, BankStatement, Bucket, OwnAccount, StatementLine
from tests.factories import balances, make_organizations, make_webhook, terms
from tests.reconciliation.reference import assert_totals_are_right
from tests.reconciliation.scenarios import rubles
from tests.statements.files import OWN, document, section, statement
from worker.applying import apply_batch

Kind = OperatorAction.Kind
DAY = "16.03.2026"


def operator() -> User:
    return User.objects.get_or_create(username="anna")[0]


def line(inn: str, number: str, kopecks: int, **fields: str) -> str:
    """Return a document of DAY; without `inn` the payer is a person."""
    base = {
        "Номер": number,
        "Дата": DAY,
        "Сумма": rubles(kopecks),
        "ПлательщикИНН": inn,
        "ДатаПоступило": DAY,
    }
    return document(**(base | fields))


def statement_of(*documents: str, came_in: int, **fields: str) -> bytes:
    """Return a statement of DAY, written on the next one, that proves itself if `came_in` is right."""
    balances = section(
        ДатаНачала=DAY,
        ДатаКонца=DAY,
        НачальныйОстаток="1000000.00",
        ВсегоПоступило=rubles(came_in),
        КонечныйОстаток=rubles(100_000_000 + came_in),
    )
    return statement(balances, *documents, **({"ДатаСоздания": "17.03.2026"} | fields)).encode("cp1251")


def import_lines(*documents: str, came_in: int, **fields: str) -> BankStatement:
    OwnAccount.objects.get_or_create(number=OWN, defaults={"since": date(2026, 1, 1)})
    imported = import_statement(statement_of(*documents, came_in=came_in, **fields), "kl_to_1c.txt")
    make_organizations(f"@{OWN}", UNKNOWN_ACCOUNT, *filter(None, lines_inns()))
    match()
    return imported.statement


def lines_inns() -> set[str | None]:
    return set(StatementLine.objects.values_list("inn", flat=True))


def notify(inn: str, number: str, kopecks: int, day: int = 16, **fields: Any) -> Webhook:
    """Store a webhook of that day in March; nothing is applied yet."""
    at = datetime(2026, 3, day, 9, tzinfo=UTC)
    make_organizations(inn)
    return make_webhook(terms(kopecks, inn=inn, document_number=number, document_date=at), **fields)


def apply_all() -> None:
    while apply_batch(100):
        pass


def lines_in(*found: Bucket) -> QuerySet[StatementLine]:
    return buckets.lines(Scope(), *found)


def settle(kind: Kind, rows: actions.Rows) -> list[str]:
    """Carry out an action on `rows`; return the outcome, or refusal, of each item."""
    action = actions.create(kind, rows, operator(), "because")
    return run(action)


def run(action: OperatorAction) -> list[str]:
    while operator_actions.run_chunk(action.pk, wait=True):
        assert_totals_are_right()
    match()  # as after the commit of the last chunk
    assert_totals_are_right()
    items = ActionItem.objects.filter(action=action).order_by("pk")
    return [item.refusal or item.outcome for item in items]


def apply_and_match() -> None:
    apply_all()
    match()


def filled() -> dict[str, tuple[int, int]]:
    """Return the number and the sum of each bucket that is not empty; the identity holds."""
    assert buckets.identity(Scope()).unexplained == 0
    assert_totals_are_right()
    totals = buckets.totals(Scope()).items()
    return {bucket.value: (total.count, total.kopecks) for bucket, total in totals if total.count}


def money() -> dict[str, int]:
    """Return the balances, in kopecks by INN, that are not 0."""
    return {inn: kopecks for inn, kopecks in balances().items() if kopecks}


def assert_books_are_right() -> None:
    assert not [*verify(), *reconcile()]
