"""Verify the ledger on live data while workers go on posting.

For each organization, entries are numbered 1..n, each balance is the balance before plus the amount, and
the organization's balance and last_seq are those of its last entry; so the balance is the sum of the amounts.
Each entry has the organization, the time and the amount of its payment, negative for a reversal, and each
payment has one entry. No balance is ever negative. A reversal takes back an earlier payment of the same
organization, in whole, and no payment is taken back twice.

A wrong time is found only if an entry and its payment disagree: nothing else in the ledger says when a
payment was posted.

No transaction stays open and no row is locked. Rows that belong together are committed together, so one
statement sees all of them or none; and the ledger is append-only, so a page that was read stays true. Rows
committed after the start may or may not be verified.
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
PK_MIN, PK_MAX = -(2**63), 2**63 - 1

Progress = Callable[[str, int], None]  # called after each page with the kind and the number of its rows
Entry = tuple[int, int, int, int, int]  # organization, seq, amount, balance after, 1 if the payment agrees
Head = tuple[int, str, int, int, int, int]  # pk, INN; last_seq, the last entry's seq; both balances likewise


@dataclass(frozen=True, slots=True)
class Drift:
    """A difference found by verification."""

    what: str  # machine-readable; if it ends with _kopecks, both values are kopecks
    rule: str  # the invariant that does not hold, for people
    expected: int | str | None
    found: int | str | None
    inn: str | None = None
    seq: int | None = None
    operation_id: UUID | None = None

    def __str__(self) -> str:
        places = {"organization": self.inn, "entry": self.seq, "operation": self.operation_id}
        where = ", ".join(f"{name} {place}" for name, place in places.items() if place is not None)
        text = f"{self.rule}; expected {self._format(self.expected)}, found {self._format(self.found)}"
        return f"{where}: {text}" if where else text

    def _format(self, value: int | str | None) -> str:
        if isinstance(value, int) and self.what.endswith("_kopecks"):
            return format_rubles(value)
        return "nothing" if value is None else str(value)


def no_progress(_what: str, _rows: int) -> None:
    pass


def verify(progress: Progress = no_progress) -> Iterator[Drift]:
    """Yield every drift inside the ledger as it is found."""
    yield from _organizations(progress)
    yield from _payments(progress, PK_MIN)
    yield from _reversals(PK_MIN)


def verify_new(progress: Progress, entries_after: int, payments_after: int) -> Iterator[Drift]:
    """Yield the drift of entries and payments above these primary keys, and of all organizations' balances.

    Each new entry is compared with the entry before it, which is trusted unless it is new itself.
    """
    for page in _heads():
        yield from _head_drifts(page)
        progress("organizations", len(page))
    before = BalanceLog.objects.filter(organization_id=OuterRef("organization_id"), seq=OuterRef("seq") - 1)
    entries = BalanceLog.objects.alias(before=Subquery(before.values("balance_after_kopecks")))
    is_first = Q(seq=1, amount_kopecks__gt=0, balance_after_kopecks=F("amount_kopecks"))
    balance = Q(balance_after_kopecks=F("before") + F("amount_kopecks"), balance_after_kopecks__gte=0)
    follows = Q(balance, seq__gt=1, before__isnull=False)
    parent = Organization.objects.filter(pk=OuterRef("organization_id"))
    valid = Q(Exists(parent)) & Q(Exists(_agreeing_payments())) & (is_first | follows)
    failing = entries.alias(valid=Case(When(valid, then=1), default=0)).filter(valid=0)
    for pk in failing_pks(failing, "entries", progress, entries_after):
        yield _new_entry_drift(BalanceLog.objects.get(pk=pk))
    yield from _payments(progress, payments_after)
    yield from _reversals(payments_after)


def _payments(progress: Progress, after: int) -> Iterator[Drift]:
    counted = Payment.objects.values("pk").annotate(entries=Count("log_entry"))
    for pk in failing_pks(counted.exclude(entries=1), "payments", progress, after):
        payment, entries = Payment.objects.get(pk=pk), BalanceLog.objects.filter(payment_id=pk).count()
        inn, rule = _inn(payment.organization_id), "a payment has exactly one entry"
        yield Drift("entries_of_payment", rule, 1, entries, inn, operation_id=payment.operation_id)


def _reversals(after: int) -> Iterator[Drift]:
    """Verify the reversals above this primary key, through their index: they are few."""
    original = Payment.objects.filter(
        pk=OuterRef("reverses_id"),
        kind=Payment.Kind.PAYMENT,
        organization_id=OuterRef("organization_id"),
        amount_kopecks=OuterRef("amount_kopecks"),
        log_entry__seq__lt=OuterRef("log_entry__seq"),
    )
    others = Payment.objects.filter(reverses_id=OuterRef("reverses_id")).exclude(pk=OuterRef("pk"))
    replaced = Payment.objects.filter(replaces__isnull=False, replaces__replaced__reversal__isnull=True)
    for payment in replaced.filter(pk__gt=after).order_by("pk"):
        rule, inn = "the payment that another one replaces is reversed", _inn(payment.organization_id)
        yield Drift("replacement", rule, None, payment.replaces.replaced_id, inn, None, payment.operation_id)
    reversals = Payment.objects.filter(reverses__isnull=False, pk__gt=after)
    for reversal in reversals.filter(~Exists(original) | Exists(others)).order_by("pk"):
        rule = "a reversal takes back an earlier payment of its organization, in whole and once"
        inn, operation_id = _inn(reversal.organization_id), reversal.operation_id
        yield Drift("reversal", rule, None, reversal.reverses_id, inn, operation_id=operation_id)


def failing_pks(
    failing: QuerySet[Any, Any], what: str, progress: Progress, after: int = PK_MIN
) -> Iterator[int]:
    """Yield the primary keys above `after` of `failing`, reading its table in primary-key pages."""
    while True:
        rows = failing.model.objects.filter(pk__gt=after).order_by("pk")[:ROWS_PER_PAGE]
        page = rows.aggregate(rows=Count("pk"), last=Max("pk"))
        if not page["rows"]:
            return
        progress(what, page["rows"])
        found = failing.filter(pk__gt=after, pk__lte=page["last"]).order_by("pk")
        yield from found.values_list("pk", flat=True)
        after = page["last"]


def _heads() -> Iterator[list[Head]]:
    """Yield pages of organizations, each with the seq and the balance of its last entry."""
    last = last_entry()
    # One statement: a balance and its last entry, read one after the other, would differ under posting.
    heads = Organization.objects.order_by("pk").values_list(
        "pk",
        "inn",
        "last_seq",
        Coalesce(Subquery(last.values("seq")[:1]), 0),
        "balance_kopecks",
        Coalesce(Subquery(last.values("balance_after_kopecks")[:1]), 0),
    )
    after = PK_MIN
    while page := list(heads.filter(pk__gt=after)[:ORGANIZATIONS_PER_PAGE]):
        yield page
        after = page[-1][0]


def _head_drifts(page: list[Head]) -> Iterator[Drift]:
    for _, inn, last_seq, entry_seq, balance, entry_balance in page:
        if last_seq != entry_seq:
            yield Drift("last_seq", "last_seq is the seq of the last entry", last_seq, entry_seq, inn)
        if balance != entry_balance:
            rule = "the balance is the balance after the last entry"
            yield Drift("balance_kopecks", rule, entry_balance, balance, inn)


def _organizations(progress: Progress) -> Iterator[Drift]:
    """Verify pages of organizations: the logs first, since they explain a wrong balance."""
    after = PK_MIN
    for page in _heads():
        yield from _logs(after, page[-1][0], {pk for pk, *_ in page}, progress)
        yield from _head_drifts(page)
        after = page[-1][0]
        progress("organizations", len(page))
    yield from _logs(after, PK_MAX, (), progress)


def _logs(after: int, last: int, known: Collection[int], progress: Progress) -> Iterator[Drift]:
    """Verify the logs of the organizations with after < id <= last; the organizations `known` exist."""
    current, seq, balance = PK_MIN, 0, 0
    for page in _pages_of_entries(after, last):
        progress("entries", len(page))
        for entry in page:
            organization_id, found_seq, amount, found_balance, agrees = entry
            if organization_id != current:
                current, seq, balance = organization_id, 0, 0
                if current not in known and not Organization.objects.filter(pk=current).exists():
                    yield _no_organization(current, found_seq)
            seq += 1
            balance += amount
            if found_seq != seq or found_balance != balance or balance < 0 or not agrees:
                yield _explain(entry, seq, balance)
                seq, balance = found_seq, found_balance


def _pages_of_entries(after: int, last: int) -> Iterator[list[Entry]]:
    """Yield the entries of the organizations with after < id <= last, by organization and seq."""
    entries = BalanceLog.objects.order_by("organization_id", "seq").values_list(
        "organization_id",
        "seq",
        "amount_kopecks",
        "balance_after_kopecks",
        Case(
            When(Exists(_agreeing_payments()), then=1), default=0
        ),  # a number, because Django converts a bool row by row
    )
    while page := list(entries.filter(organization_id__gt=after, organization_id__lte=last)[:ROWS_PER_PAGE]):
        after, seq, *_ = page[-1]
        if len(page) < ROWS_PER_PAGE:
            yield page
        else:
            yield page[:-1]  # the last seq may have a duplicate, which would fall between two pages
            yield from _rest_of_log(entries.filter(organization_id=after), seq)


def _agreeing_payments() -> QuerySet[Payment]:
    """Return a subquery for an entry's payment, empty if the two disagree."""
    amount = OuterRef("amount_kopecks")
    credited = Q(kind=Payment.Kind.PAYMENT, reverses__isnull=True, amount_kopecks=amount)
    taken_back = Q(kind=Payment.Kind.REVERSAL, reverses__isnull=False, amount_kopecks=0 - amount)
    return Payment.objects.filter(
        credited | taken_back,
        pk=OuterRef("payment_id"),
        organization_id=OuterRef("organization_id"),
        created_at=OuterRef("created_at"),
    )


def _rest_of_log(entries: QuerySet[BalanceLog, Entry], seq: int | None) -> Iterator[list[Entry]]:
    """Yield one organization's entries from `seq` on, in pages.

    A page has two bounds, because with a LIMIT alone MariaDB reads the log from entry 1 for each page. The
    first seq of the next page is read before the page: when entry n is committed, so are those before it, and
    a worker that fills the page while it is read would otherwise leave a gap between the two.
    """
    while seq is not None:
        following = entries.filter(seq__gte=seq + ROWS_PER_PAGE).aggregate(seq=Min("seq"))["seq"]
        yield list(entries.filter(seq__gte=seq, seq__lt=seq + ROWS_PER_PAGE))
        seq = following


def _explain(entry: Entry, seq: int, balance: int) -> Drift:
    """Return the drift of an entry that should have this `seq` and this `balance` after it."""
    organization_id, found_seq, _, found_balance, agrees = entry
    inn = _inn(organization_id)
    if found_seq > seq:
        rule = "entries are numbered 1, 2, 3 … without a gap"
        return Drift("missing_entry", rule, seq, found_seq, inn, seq)
    if found_seq < seq:
        return Drift("duplicate_seq", "no two entries have the same seq", seq, found_seq, inn, found_seq)
    if not agrees:
        return _disagreement(BalanceLog.objects.get(organization_id=organization_id, seq=seq), inn)
    if found_balance == balance < 0:
        return Drift("negative_kopecks", "no balance is negative", 0, balance, inn, seq)
    rule = "the balance after an entry is the balance before, plus its amount"
    return Drift("balance_after_kopecks", rule, balance, found_balance, inn, seq)


def _no_organization(organization_id: int, seq: int) -> Drift:
    expected = f"the organization with id {organization_id}"
    return Drift("organization", "a log belongs to an organization", expected, None, seq=seq)


def _new_entry_drift(entry: BalanceLog) -> Drift:
    """Return the drift of an entry by itself, or against the entry before it."""
    if not Organization.objects.filter(pk=entry.organization_id).exists():
        return _no_organization(entry.organization_id, entry.seq)
    before = BalanceLog.objects.filter(organization_id=entry.organization_id, seq=entry.seq - 1).first()
    balance = (before.balance_after_kopecks if before else 0) + entry.amount_kopecks
    found = entry.balance_after_kopecks
    agrees = 0 if found == balance >= 0 else 1  # with the right balance, it is the payment that disagrees
    values = (entry.organization_id, entry.seq, entry.amount_kopecks, found, agrees)
    return _explain(values, entry.seq if before else 1, balance)


def _disagreement(entry: BalanceLog, inn: str) -> Drift:
    """Return the drift of an entry that differs from its payment."""
    payment = Payment.objects.filter(pk=entry.payment_id).first()
    if payment is None:
        expected = f"the payment with id {entry.payment_id}"
        return Drift("payment", "an entry belongs to a payment", expected, None, inn, entry.seq)
    where = inn, entry.seq, payment.operation_id
    if payment.organization_id != entry.organization_id:
        rule = "an entry is in the log of its payment's organization"
        return Drift("organization", rule, _inn(payment.organization_id), inn, *where)
    is_reversal = payment.kind == Payment.Kind.REVERSAL
    if is_reversal != (payment.reverses_id is not None):
        return Drift(
            "kind", "a reversal, and only a reversal, reverses a payment", None, payment.kind, *where
        )
    amount = -payment.amount_kopecks if is_reversal else payment.amount_kopecks
    if amount != entry.amount_kopecks:
        rule = "the amount of an entry is that of its payment, negative for a reversal"
        return Drift("amount_kopecks", rule, amount, entry.amount_kopecks, *where)
    rule = "the time of an entry is that of its payment"
    return Drift("created_at", rule, str(payment.created_at), str(entry.created_at), *where)


def _inn(organization_id: int) -> str:
    inn = Organization.objects.filter(pk=organization_id).values_list("inn", flat=True).first()
    return inn or f"with id {organization_id}"
