"""What proves a stored statement, account by account: the sums of its sections against its documents."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

from django.db.models import BigIntegerField, Case, F, Sum, When

from statements.models import BankStatement, OwnAccount, StatementBalance, StatementLine

Sums = dict[tuple[int, str], int]
_REVERSED = When(is_reversal=True, then=-1 * F("kopecks"))
_SIGNED = Case(_REVERSED, default=F("kopecks"), output_field=BigIntegerField())


@dataclass(frozen=True, slots=True)
class AccountProof:
    """An account's balances in a statement, in hundredths of its currency, and what its documents come to.

    `breaks` are the sections whose opening balance is not the closing balance of the one before.
    """

    account: OwnAccount
    sections: list[StatementBalance]
    documents_in: int
    documents_out: int

    @property
    def proof(self) -> StatementBalance.Proof:
        return StatementBalance.Proof(self.sections[0].proof)

    @property
    def opening(self) -> int | None:
        return self.sections[0].opening

    @property
    def closing(self) -> int | None:
        return self.sections[-1].closing

    @property
    def credited(self) -> int | None:
        return _total([section.credited for section in self.sections])

    @property
    def debited(self) -> int | None:
        return _total([section.debited for section in self.sections])

    @property
    def difference(self) -> int | None:
        """Return opening + documents in − documents out − closing."""
        if self.opening is None or self.closing is None:
            return None
        return self.opening + self.documents_in - self.documents_out - self.closing

    @property
    def breaks(self) -> list[StatementBalance]:
        return [right for left, right in pairwise(self.sections) if left.closing != right.opening]


def prove(statement: BankStatement) -> Iterator[AccountProof]:
    """Yield the proof of each account of `statement`."""
    sums = _documents(statement)
    balances = statement.balances.select_related("account").order_by("account__number", "first_day", "pk")
    for account, sections in groupby(balances, key=lambda balance: balance.account):
        received, paid = (sums.get((account.pk, side), 0) for side in StatementLine.Side)
        yield AccountProof(account, list(sections), received, paid)


def _documents(statement: BankStatement) -> Sums:
    """Return the sum of the statement's lines by account and side; the bank's reversals reduce it."""
    lines = StatementLine.objects.filter(sightings__statement=statement).order_by()
    rows = lines.values_list("account_id", "side").annotate(total=Sum(_SIGNED))
    return {(account, side): kopecks for account, side, kopecks in rows}


def _total(values: list[int | None]) -> int | None:
    present = [value for value in values if value is not None]
    return sum(present) if len(present) == len(values) else None
