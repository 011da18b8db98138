"""Prove an account's documents by its balances: opening + in − out = closing, and turnovers = documents."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Literal

from statements import keys
from statements.blocks import Block
from statements.documents import Document
from statements.field_values import parse_balance, parse_date, without_blanks

Proof = Literal["holds", "fails", "unprovable"]


@dataclass(frozen=True, slots=True)
class Section:
    """Balances and turnovers of an account in a period, in hundredths of its currency; None if missing."""

    account: str
    line: int
    first_day: date | None
    last_day: date | None
    opening: int | None
    credited: int | None
    debited: int | None
    closing: int | None


@dataclass(frozen=True, slots=True)
class AccountProof:
    """An account's sections in order of their days, what its documents come to, and what that proves.

    `checks` are None where a value that they need is missing.
    """

    account: str
    sections: tuple[Section, ...]
    opening: int | None
    credited: int | None
    debited: int | None
    closing: int | None
    documents_credited: int
    documents_debited: int
    checks: dict[str, bool | None]

    @property
    def broken(self) -> list[str]:
        return sorted(name for name, is_right in self.checks.items() if is_right is False)

    @property
    def proof(self) -> Proof:
        """Return the proof. The chain of a single section has nothing to prove."""
        if self.broken:
            return "fails"
        needed = [
            is_right for name, is_right in self.checks.items() if name != "chain" or len(self.sections) > 1
        ]
        return "unprovable" if None in needed else "holds"


def read_section(block: Block, only_account: str | None) -> Section | None:
    """Return the balances of `block`; without an account of its own they are of the header's only account."""

    def value(key: str) -> str:
        return "" if key in block.conflicts else block.fields.get(key, "")

    account = without_blanks(value(keys.ACCOUNT)) or (
        None if keys.ACCOUNT in block.conflicts else only_account
    )
    if account is None:
        return None
    return Section(
        account,
        block.lines.get(keys.FIRST_DAY, block.line),
        first_day=parse_date(value(keys.FIRST_DAY)),
        last_day=parse_date(value(keys.LAST_DAY)),
        opening=parse_balance(value(keys.OPENING)),
        credited=parse_balance(value(keys.CREDITED)),
        debited=parse_balance(value(keys.DEBITED)),
        closing=parse_balance(value(keys.CLOSING)),
    )


def prove(
    accounts: Iterable[str], sections: Iterable[Section], documents: Iterable[Document]
) -> Iterator[AccountProof]:
    """Yield the proof of each of `accounts`."""
    by_account: dict[str, list[Section]] = {account: [] for account in accounts}
    for section in sections:
        by_account[section.account].append(section)
    turnovers = {(account, is_credit): 0 for account in by_account for is_credit in (True, False)}
    for movement in (movement for document in documents for movement in document.movements):
        turnovers[movement.account, movement.is_credit] += movement.kopecks
    for account, unordered in by_account.items():
        yield _prove(account, _by_day(unordered), turnovers[account, True], turnovers[account, False])


def _by_day(sections: list[Section]) -> tuple[Section, ...]:
    """Return `sections` in order of their days, or as in the file if one has none."""
    if all(section.first_day and section.last_day for section in sections):
        sections = sorted(sections, key=lambda section: (section.first_day, section.last_day))
    return tuple(sections)


def _prove(
    account: str, sections: tuple[Section, ...], documents_in: int, documents_out: int
) -> AccountProof:
    opening = sections[0].opening if sections else None
    closing = sections[-1].closing if sections else None
    credited = _total([section.credited for section in sections])
    debited = _total([section.debited for section in sections])
    checks = {
        "arithmetic": _all([_adds_up(section) for section in sections]),
        "credits": _equal(credited, documents_in),
        "debits": _equal(debited, documents_out),
        "balances": None if opening is None else _equal(closing, opening + documents_in - documents_out),
        "chain": _all([_equal(left.closing, right.opening) for left, right in pairwise(sections)]),
    }
    sums = opening, credited, debited, closing
    return AccountProof(account, sections, *sums, documents_in, documents_out, checks)


def _adds_up(section: Section) -> bool | None:
    if section.opening is None or section.credited is None or section.debited is None:
        return None
    return _equal(section.closing, section.opening + section.credited - section.debited)


def _equal(one: int | None, other: int | None) -> bool | None:
    return None if one is None or other is None else one == other


def _total(values: list[int | None]) -> int | None:
    present = [value for value in values if value is not None]
    return sum(present) if values and len(present) == len(values) else None


def _all(checks: list[bool | None]) -> bool | None:
    """Return False if one check failed, None if there are none or one can't be made, else True."""
    if False in checks:
        return False
    return None if None in checks or not checks else True


def gaps(proof: AccountProof) -> Iterator[tuple[date, date]]:
    """Yield the first and last day of each gap between an account's sections."""
    one_day = timedelta(days=1)
    for left, right in pairwise(proof.sections):
        if left.last_day and right.first_day and right.first_day - left.last_day > one_day:
            yield left.last_day + one_day, right.first_day - one_day
