"""Decide which way each document's money went, and whether it can be credited to its payer.

A document's kind is never considered: the bank may book a memorial order where it notified a payment order.
"""

import re
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Literal, NamedTuple

from ledger.inn import is_checksum_valid, is_inn
from statements import keys
from statements.document_terms import Error, Terms
from statements.field_values import currency_of, inn_problem, parse_date

Direction = Literal["in", "out", "internal", "unknown"]
# An ordinary debit that says to take an earlier credit back.
_REVERSAL_WORDS = re.compile(r"сторн|исправ|ошибочн", re.IGNORECASE)


class Movement(NamedTuple):
    """What a document does to one of the file's accounts: `kopecks` are negative for a bank reversal."""

    account: str
    is_credit: bool
    kopecks: int


@dataclass(frozen=True, slots=True)
class Document:
    """A document in its file. `not_creditable` is why its payer can't be credited, None if the payer can.

    `may_reverse` is the index, from 1, of the earlier credit that this debit seems to take back.
    """

    index: int
    terms: Terms
    direction: Direction
    payer_account: str | None
    payee_account: str | None
    booked_on: date | None
    movements: tuple[Movement, ...]
    errors: tuple[Error, ...]
    payer_is_owner: bool
    not_creditable: str | None
    may_reverse: int | None

    @property
    def payer_inn_checksum_holds(self) -> bool | None:
        """Return whether the payer's INN has valid check digits, None if it has not the shape of an INN."""
        inn = self.terms.payer.inn
        return is_checksum_valid(inn) if inn is not None and is_inn(inn) else None


def place(all_terms: Collection[Terms], own: Collection[str]) -> Iterator[Document]:
    """Yield the documents of `all_terms`, given the file's own accounts."""
    all_accounts = [(terms.payer.account(own), terms.payee.account(own)) for terms in all_terms]
    directions = [
        _direction(terms, is_from_us=payer in own, is_to_us=payee in own)
        for terms, (payer, payee) in zip(all_terms, all_accounts, strict=True)
    ]
    owner_inns = {inn for inn in map(_owner_inn, all_terms, directions) if inn}
    last_credits: dict[Hashable, int] = {}
    found = zip(all_terms, directions, all_accounts, strict=True)
    for index, (terms, direction, (payer, payee)) in enumerate(found, 1):
        booked_on, errors = _book(terms, direction)
        movements = () if errors else tuple(_movements(terms, direction, payer, payee))
        payer_is_owner = _is_owner(terms, direction, owner_inns)
        yield Document(
            *(
                index,
                terms,
                direction,
                payer,
                payee,
                booked_on,
                movements,
            ),
            errors=errors,
            payer_is_owner=payer_is_owner,
            not_creditable=_not_creditable(terms, direction, movements, is_owner=payer_is_owner),
            may_reverse=_may_reverse(last_credits, index, terms, movements),
        )


def _direction(terms: Terms, *, is_from_us: bool, is_to_us: bool) -> Direction:
    if not (is_from_us and is_to_us):
        return "in" if is_to_us else "out" if is_from_us else "unknown"
    has_debit, has_credit = bool(terms.debited_on), bool(terms.credited_on)
    if has_debit == has_credit:
        return "internal" if terms.is_credit is None else "in" if terms.is_credit else "out"
    return "in" if has_credit else "out"


def _book(terms: Terms, direction: Direction) -> tuple[date | None, tuple[Error, ...]]:
    """Return the day on which the document was booked, and all its errors."""
    if any(error.code == "unclosed" for error in terms.errors):
        texts = {"out": terms.debited_on, "unknown": ""}
        return parse_date(texts.get(direction, terms.credited_on)), terms.errors
    if direction == "unknown":
        is_doubtful = any(
            error.key and error.key.startswith((keys.PAYER, keys.PAYEE)) for error in terms.errors
        )
        return None, terms.errors if is_doubtful else (*terms.errors, Error("account_foreign"))
    key, text = _booking_field(terms, direction)
    booked_on = parse_date(text)
    errors = (Error("date_invalid", key),) if text and booked_on is None else ()
    return booked_on, (*terms.errors, *errors)


def _booking_field(terms: Terms, direction: Direction) -> tuple[str, str]:
    if direction == "out" or (direction == "internal" and not terms.credited_on):
        return keys.DEBITED_ON, terms.debited_on
    return keys.CREDITED_ON, terms.credited_on


def _movements(
    terms: Terms, direction: Direction, payer: str | None, payee: str | None
) -> Iterator[Movement]:
    """Yield a debit of the payer's account, a credit of the payee's account, or both if both are ours."""
    if terms.amount is None:
        return
    if payer is not None and direction in {"out", "internal"}:
        yield Movement(payer, is_credit=False, kopecks=terms.amount)
    if payee is not None and direction in {"in", "internal"}:
        yield Movement(payee, is_credit=True, kopecks=terms.amount)


def _owner_inn(terms: Terms, direction: Direction) -> str | None:
    """Return the INN on the own side of a document."""
    inn = {"in": terms.payee.inn, "out": terms.payer.inn}.get(direction)
    return inn if inn_problem(inn) is None else None


def _is_owner(terms: Terms, direction: Direction, owner_inns: Collection[str]) -> bool:
    """Return whether a credit's payer is its payee or, if that has no INN, the owner in other documents."""
    if direction not in {"in", "internal"} or inn_problem(terms.payer.inn):
        return False
    return terms.payer.inn in (owner_inns if terms.payee.inn is None else {terms.payee.inn})


def _not_creditable(
    terms: Terms, direction: Direction, movements: tuple[Movement, ...], *, is_owner: bool
) -> str | None:
    """Return the first reason that applies. Errors left no movements."""
    if not movements:
        return "document_error"
    if direction != "in":
        return f"direction_{direction}"
    if movements[0].kopecks < 0:
        return "reversal"
    if currency_of(movements[0].account) != "RUB":
        return "currency"
    return "own_money" if is_owner else inn_problem(terms.payer.inn)


def _may_reverse(
    last_credits: dict[Hashable, int], index: int, terms: Terms, movements: tuple[Movement, ...]
) -> int | None:
    """Return the last credit of a debit's amount and accounts, if the purpose speaks of a correction.

    Add a credit to `last_credits`.
    """
    if len(movements) != 1 or movements[0].kopecks < 0:
        return None
    movement = movements[0]
    others = terms.payer.accounts if movement.is_credit else terms.payee.accounts
    key = (movement.account, others[:1], movement.kopecks)
    if movement.is_credit:
        last_credits[key] = index
        return None
    return last_credits.get(key) if _REVERSAL_WORDS.search(terms.purpose) else None
