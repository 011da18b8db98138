"""The specification's worked example: an accountant's morning, from the import to nothing unexplained."""

import pytest
from django.db.models import Sum

from ingest import operator_actions
from ingest.models import OperatorAction, Webhook
from ledger.models import BalanceLog, Organization
from statements import buckets
from statements.buckets import Scope
from statements.models import Bucket
from tests.reconciliation.settlement import (
    OWN,
    apply_all,
    apply_and_match,
    assert_books_are_right,
    filled,
    import_lines,
    line,
    lines_in,
    money,
    notify,
    operator,
    settle,
)

Kind = OperatorAction.Kind
R, V, L, OURSELVES = "0033003303", "0044004404", "0055005512", "0011001101"


@pytest.mark.django_db
def test_worked_example() -> None:
    notify(R, "328", 145_000_00)
    notify(R, "7", 5_000_00)
    notify(R, "7", 5_000_00)
    notify(L, "8", 100_00)
    apply_all()
    import_lines(
        line(R, "PAY-328", 145_000_00),
        line(V, "45", 20_000_00),
        line("", "3", 100_50),
        line(R, "7", 5_000_00),
        line(L, "8", 90_00),
        line(OURSELVES, "6", 50_000_00),
        came_in=220_190_50,
    )

    assert filled() == {
        "matched": (2, 150_000_00),
        "missing_webhook": (1, 20_000_00),
        "unidentified": (1, 100_50),
        "amount_mismatch": (1, 90_00),
        "duplicate": (1, 5_000_00),
        "excluded": (1, 50_000_00),
    }
    assert sides() == (155_100_00, 220_190_50, -65_090_50)
    assert money() == {R: 155_000_00, L: 100_00}  # importing posted nothing

    assert settle(Kind.POST, lines_in(Bucket.MISSING_WEBHOOK)) == ["done"]
    assert settle(Kind.POST, lines_in(Bucket.UNIDENTIFIED)) == ["done"]
    assert settle(Kind.TAKE_BACK, buckets.webhooks(Scope(), Bucket.DUPLICATE)) == ["done"]
    assert settle(Kind.BY_LINE, lines_in(Bucket.AMOUNT_MISMATCH)) == ["done"]
    apply_and_match()

    assert filled() == {"matched": (5, 170_190_50), "excluded": (1, 50_000_00)}
    assert sides() == (170_190_50, 220_190_50, -50_000_00)
    suspense = f"@{OWN}"
    assert entries(R) == [145_000_00, 5_000_00, 5_000_00, -5_000_00]
    assert [entries(V), entries(L), entries(suspense)] == [[20_000_00], [100_00, -100_00, 90_00], [100_50]]
    assert_books_are_right()

    assign(Webhook.objects.get(payer_inn=suspense), V)
    apply_and_match()

    assert money() == {R: 150_000_00, V: 20_100_50, L: 90_00}
    assert Organization.objects.aggregate(sum=Sum("balance_kopecks"))["sum"] == 170_190_50  # I4
    assert filled() == {"matched": (5, 170_190_50), "excluded": (1, 50_000_00)}
    assert_books_are_right()


def sides() -> tuple[int, int, int]:
    identity = buckets.identity(Scope())
    return identity.ledger, identity.bank, identity.difference


def entries(inn: str) -> list[int]:
    log = BalanceLog.objects.filter(organization__inn=inn).order_by("seq")
    return list(log.values_list("amount_kopecks", flat=True))


def assign(webhook: Webhook, inn: str) -> None:
    by = operator()
    action = OperatorAction(kind=Kind.ASSIGN, by=by, by_name="anna", inn=inn)
    operator_actions.create_for_ids(action, [webhook.pk], "the contract's number is in the purpose")
    while operator_actions.run_chunk(action.pk):
        pass
