"""Proof on live data that the ledger holds what it promises, while workers go on posting.

For each organization: its lines are numbered 1..n, each balance after is the one before plus the
amount, and the organization's balance and last_seq are those of the newest line; so the balance is
the sum of the amounts, too. Each line has the organization, the amount and the moment of its payment, and
each payment has exactly one line.

Whether the moment itself is right can't be proven: what changes it in a payment and in its line alike is
not seen, because nothing else in the ledger says when a payment was posted.

No transaction is held and nothing is locked. What belongs together is committed together, so one
statement sees all of it or none; and what one page has shown stays true, because the log only
grows. What is committed after the beginning may or may not be looked at.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Case, Count, Exists, F, Max, Min, OuterRef, Q, QuerySet, Subquery, When
from django.db.models.functions import Coalesce

from ledger.models import BalanceLog, Organization, Payment
from ledger.money import format_rubles
from ledger.queries import last_entry

ROWS_PER_PAGE = 10_000
ORGANIZATIONS_PER_PAGE = 1_000
PK_MIN, PK_MAX = -(2**63), 2**63 - 1  # primary keys

Progress = Callable[[str, int], None]  # called for each page: what was checked, and how many rows of it
Line = tuple[int, int, int, int, int]  # organization, seq, amount, balance after, 1 if the payment agrees
Head = tuple[int, str, int, int, int, int]  # key, INN; last_seq, the newest line's; likewise the balance


@dataclass(frozen=True, slots=True)
class Drift:
    """A difference that verification found."""

    what: str  # a name for programs; where it ends with _kopecks, both values are kopecks
    rule: str  # what must hold, for people
    expected: int | str | None
    found: int | str | None
    inn: str | None = None
    seq: int | None = None
    operation_id: UUID | None = None

    def __str__(self) -> str:
        places = {"organization": self.inn, "line": self.seq, "operation": self.operation_id}
        where = ", ".join(f"{name} {place}" for name, place in places.items() if place is not None)
        said = f"{self.rule}; expected {self._say(self.expected)}, found {self._say(self.found)}"
        return f"{where}: {said}" if where else said

    def _say(self, value: int | str | None) -> str:
        if isinstance(value, int) and self.what.endswith("_kopecks"):
            return format_rubles(value)
        return "nothing" if value is None else str(value)


def no_progress(_what: str, _rows: int) -> None:
    """A Progress that nobody watches."""


def verify(progress: Progress = no_progress) -> Iterator[Drift]:
    """Every drift inside the ledger, as it is found; none when all is right."""
    yield from _organizations(progress)
    yield from _payments(progress, PK_MIN)


def verify_new(progress: Progress, lines_after: int, payments_after: int) -> Iterator[Drift]:
    """Drift of the lines and payments behind these primary keys, and of all organizations against their
    newest lines. Each line is compared with the one before it, which is trusted if it isn't new itself.
    """
    for page in _heads():
        yield from _head_drifts(page)
        progress("organizations", len(page))
    before = BalanceLog.objects.filter(organization_id=OuterRef("organization_id"), seq=OuterRef("seq") - 1)
    lines = BalanceLog.objects.alias(before=Subquery(before.values("balance_after_kopecks")))
    first = Q(seq=1, balance_after_kopecks=F("amount_kopecks"))
    follows = Q(seq__gt=1, before__isnull=False, balance_after_kopecks=F("before") + F("amount_kopecks"))
    its = Organization.objects.filter(pk=OuterRef("organization_id"))
    right = Q(Exists(its)) & Q(Exists(_agreeing_payments())) & (first | follows)
    wrong = lines.alias(right=Case(When(right, then=1), default=0)).filter(right=0)
    for pk in failing_pks(wrong, "entries", progress, lines_after):
        yield _new_line_drift(BalanceLog.objects.get(pk=pk))
    yield from _payments(progress, payments_after)


def _payments(progress: Progress, after: int) -> Iterator[Drift]:
    counted = Payment.objects.values("pk").annotate(lines=Count("log_entry"))
    for pk in failing_pks(counted.exclude(lines=1), "payments", progress, after):
        payment, lines = Payment.objects.get(pk=pk), BalanceLog.objects.filter(payment_id=pk).count()
        inn, rule = _inn(payment.organization_id), "a payment stands in the log, once"
        yield Drift("entries_of_payment", rule, 1, lines, inn, operation_id=payment.operation_id)


def failing_pks(
    offending: QuerySet[Any, Any], what: str, progress: Progress, after: int = PK_MIN
) -> Iterator[int]:
    """Primary keys of a table's offending rows behind `after`; it is read in pages along that key."""
    while True:
        rows = offending.model.objects.filter(pk__gt=after).order_by("pk")[:ROWS_PER_PAGE]
        page = rows.aggregate(rows=Count("pk"), last=Max("pk"))
        if not page["rows"]:
            return
        progress(what, page["rows"])
        found = offending.filter(pk__gt=after, pk__lte=page["last"]).order_by("pk")
        yield from found.values_list("pk", flat=True)
        after = page["last"]


def _heads() -> Iterator[list[Head]]:
    """The organizations in pages, each with its newest line."""
    newest = last_entry()
    # One statement: a balance and its newest line read one after the other would differ under posting.
    heads = Organization.objects.order_by("pk").values_list(
        "pk",
        "inn",
        "last_seq",
        Coalesce(Subquery(newest.values("seq")[:1]), 0),
        "balance_kopecks",
        Coalesce(Subquery(newest.values("balance_after_kopecks")[:1]), 0),
    )
    after = PK_MIN
    while page := list(heads.filter(pk__gt=after)[:ORGANIZATIONS_PER_PAGE]):
        yield page
        after = page[-1][0]


def _head_drifts(page: list[Head]) -> Iterator[Drift]:
    for _, inn, last_seq, newest_seq, balance, newest_balance in page:
        if last_seq != newest_seq:
            yield Drift("last_seq", "the log ends with line last_seq", last_seq, newest_seq, inn)
        if balance != newest_balance:
            rule = "the balance is the one after the newest line"
            yield Drift("balance_kopecks", rule, newest_balance, balance, inn)


def _organizations(progress: Progress) -> Iterator[Drift]:
    """The organizations in pages; for each page the logs first, since they explain the balances."""
    after = PK_MIN
    for page in _heads():
        yield from _logs(after, page[-1][0], {pk for pk, *_ in page}, progress)
        yield from _head_drifts(page)
        after = page[-1][0]
        progress("organizations", len(page))
    yield from _logs(after, PK_MAX, (), progress)


def _logs(after: int, last: int, known: Collection[int], progress: Progress) -> Iterator[Drift]:
    """The logs of the organizations with after < id <= last, line by line; those `known` do exist."""
    current, seq, balance = PK_MIN, 0, 0
    for page in _pages_of_lines(after, last):
        progress("entries", len(page))
        for line in page:
            organization_id, found_seq, amount, found_balance, agrees = line
            if organization_id != current:
                current, seq, balance = organization_id, 0, 0
                if current not in known and not Organization.objects.filter(pk=current).exists():
                    yield _no_organization(current, found_seq)
            seq += 1
            balance += amount
            if found_seq != seq or found_balance != balance or not agrees:
                yield _explain(line, seq, balance)
                seq, balance = found_seq, found_balance


def _pages_of_lines(after: int, last: int) -> Iterator[list[Line]]:
    """The lines of the organizations with after < id <= last, by organization and seq."""
    lines = BalanceLog.objects.order_by("organization_id", "seq").values_list(
        "organization_id",
        "seq",
        "amount_kopecks",
        "balance_after_kopecks",
        Case(
            When(Exists(_agreeing_payments()), then=1), default=0
        ),  # as a number: a bool is converted row by row
    )
    while page := list(lines.filter(organization_id__gt=after, organization_id__lte=last)[:ROWS_PER_PAGE]):
        after, seq, *_ = page[-1]
        if len(page) < ROWS_PER_PAGE:
            yield page
        else:
            yield page[:-1]  # the last line may have a double, which would fall between two pages
            yield from _rest_of_log(lines.filter(organization_id=after), seq)


def _agreeing_payments() -> QuerySet[Payment]:
    """Of a line its payment, where the two agree."""
    return Payment.objects.filter(
        pk=OuterRef("payment_id"),
        organization_id=OuterRef("organization_id"),
        amount_kopecks=OuterRef("amount_kopecks"),
        created_at=OuterRef("created_at"),
    )


def _rest_of_log(lines: QuerySet[BalanceLog, Line], seq: int | None) -> Iterator[list[Line]]:
    """One organization's lines from number `seq` on.

    Between two numbers, because with a LIMIT alone MariaDB reads the log from line 1 for each page. The
    beginning of the next page is read before the page: when line n is committed so are those before it, and
    a worker that fills the page while it is read would otherwise leave a gap between the two.
    """
    while seq is not None:
        following = lines.filter(seq__gte=seq + ROWS_PER_PAGE).aggregate(seq=Min("seq"))["seq"]
        yield list(lines.filter(seq__gte=seq, seq__lt=seq + ROWS_PER_PAGE))
        seq = following


def _explain(line: Line, seq: int, balance: int) -> Drift:
    """What is wrong with a line that should have been number `seq`, with `balance` after it."""
    organization_id, found_seq, _, found_balance, agrees = line
    inn = _inn(organization_id)
    if found_seq > seq:
        return Drift("missing_entry", "lines are numbered 1, 2, 3 … without a gap", seq, found_seq, inn, seq)
    if found_seq < seq:
        return Drift("duplicate_seq", "no two lines have one number", seq, found_seq, inn, found_seq)
    if not agrees:
        return _disagreement(BalanceLog.objects.get(organization_id=organization_id, seq=seq), inn)
    rule = "the balance after a line is the one before, plus its amount"
    return Drift("balance_after_kopecks", rule, balance, found_balance, inn, seq)


def _no_organization(organization_id: int, seq: int) -> Drift:
    wanted = f"the organization with id {organization_id}"
    return Drift("organization", "a log belongs to an organization", wanted, None, seq=seq)


def _new_line_drift(line: BalanceLog) -> Drift:
    """What is wrong with a line by itself, or after the one before it."""
    if not Organization.objects.filter(pk=line.organization_id).exists():
        return _no_organization(line.organization_id, line.seq)
    before = BalanceLog.objects.filter(organization_id=line.organization_id, seq=line.seq - 1).first()
    balance = (before.balance_after_kopecks if before else 0) + line.amount_kopecks
    found = line.balance_after_kopecks
    agrees = 0 if found == balance else 1  # a line that follows from the one before is wrong by its payment
    told = (line.organization_id, line.seq, line.amount_kopecks, found, agrees)
    return _explain(told, line.seq if before else 1, balance)


def _disagreement(line: BalanceLog, inn: str) -> Drift:
    """How a line differs from its payment."""
    payment = Payment.objects.filter(pk=line.payment_id).first()
    if payment is None:
        wanted = f"the payment with id {line.payment_id}"
        return Drift("payment", "a line belongs to a payment", wanted, None, inn, line.seq)
    where = inn, line.seq, payment.operation_id
    if payment.organization_id != line.organization_id:
        rule = "a line stands in the log of its payment's organization"
        return Drift("organization", rule, _inn(payment.organization_id), inn, *where)
    if payment.amount_kopecks != line.amount_kopecks:
        rule = "the amount of a line is that of its payment"
        return Drift("amount_kopecks", rule, payment.amount_kopecks, line.amount_kopecks, *where)
    rule = "a line says the same moment as its payment"
    return Drift("created_at", rule, str(payment.created_at), str(line.created_at), *where)


def _inn(organization_id: int) -> str:
    inn = Organization.objects.filter(pk=organization_id).values_list("inn", flat=True).first()
    return inn or f"with id {organization_id}"
