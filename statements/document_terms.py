"""Read what a document says by itself, before it is known which accounts are the file's own."""

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from datetime import date
from sys import intern
from typing import NamedTuple

from statements import keys
from statements.blocks import Block
from statements.field_values import (
    InvalidAmount,
    find_inn,
    parse_amount,
    parse_date,
    split_inn,
    without_blanks,
)

_WHITESPACE = re.compile("[ \\t\\n\N{NO-BREAK SPACE}]+")


@dataclass(frozen=True, slots=True)
class Error:
    """Why a document can't be used: a code, and the key of the field that it is about."""

    code: str
    key: str | None = None


class Side(NamedTuple):
    """The payer or the payee. `inn_from` is the key of the name in which the INN was found."""

    inn: str | None
    kpp: str | None
    accounts: tuple[str, ...]
    inn_from: str | None = None

    def account(self, own: Container[str]) -> str | None:
        """Return the first of the side's accounts that is in `own`, or else the first."""
        for account in self.accounts:
            if account in own:
                return account
        return self.accounts[0] if self.accounts else None


class Terms(NamedTuple):
    """The fields of a document, which is text[start:end] of its file, unknown keys included.

    `amount` is in hundredths of the currency, negative for a bank reversal, None if unreadable. `is_credit`
    is what the amount's key says, if it says a direction. `debited_on` and `credited_on` are texts.
    """

    line: int
    start: int
    end: int
    kind: str
    number: str | None
    date: date | None
    debited_on: str
    credited_on: str
    amount: int | None
    is_credit: bool | None
    payer: Side
    payee: Side
    purpose: str
    uin: str | None
    errors: tuple[Error, ...]


def read_terms(block: Block) -> Terms:
    """Return what the document of `block` says; a value that can't be read is None, and there is an error.

    Texts that many documents share are kept once, by interning.
    """
    amount_key, is_credit = _choose_amount(block)
    amount, amount_error = _read_amount(block, amount_key)
    exact = _exact(block)
    day = parse_date(exact.get(keys.DATE, ""))
    booked_on = exact.get(keys.BOOKED_ON, "")
    return Terms(
        *(block.line, block.start, block.end, intern(block.value)),
        number=exact.get(keys.NUMBER) or None,
        date=day,
        debited_on=intern(exact.get(keys.DEBITED_ON) or booked_on),
        credited_on=intern(exact.get(keys.CREDITED_ON) or booked_on),
        amount=amount,
        is_credit=is_credit,
        payer=_read_payer(block, exact),
        payee=_read_side(exact, keys.PAYEE),
        purpose=_read_purpose(block.fields),
        uin=_read_uin(block.fields),
        errors=tuple(_errors_of(block, day, amount_error)),
    )


def _exact(block: Block) -> dict[str, str]:
    """Return the fields; the value of a key that has two different ones is empty."""
    return block.fields | dict.fromkeys(block.conflicts, "") if block.conflicts else block.fields


def _choose_amount(block: Block) -> tuple[str, bool | None]:
    """Return the key of the amount, and whether it says that money came in, as keys of Kazakhstan do."""
    if not block.fields.get(keys.AMOUNT):
        for key, other, is_credit in (
            (keys.AMOUNT_IN, keys.AMOUNT_OUT, True),
            (keys.AMOUNT_OUT, keys.AMOUNT_IN, False),
        ):
            if block.fields.get(key) and not without_blanks(block.fields.get(other, "")).strip("0.,"):
                return key, is_credit
    return keys.AMOUNT, None


def _read_amount(block: Block, key: str) -> tuple[int | None, Error | None]:
    if key in block.conflicts:
        return None, None
    try:
        amount = parse_amount(block.fields.get(key, ""))
    except InvalidAmount as exc:
        return None, Error(exc.code, key)
    return (amount, None) if amount else (None, Error("amount_zero", key))


def _errors_of(block: Block, day: date | None, amount_error: Error | None) -> Iterator[Error]:
    """Yield the errors of a document. An unclosed one lacks fields for that reason alone."""
    if not block.is_closed:
        yield Error("unclosed")
        return
    yield from (Error("key_conflict", key) for key in dict.fromkeys(block.conflicts))
    if amount_error:
        yield amount_error
    if day is None and keys.DATE not in block.conflicts:
        yield Error("date_invalid" if block.fields.get(keys.DATE) else "date_missing", keys.DATE)


def _read_side(exact: dict[str, str], side: str) -> Side:
    inn, kpp = split_inn(exact.get(side + keys.SIDE_INN, ""))
    values = [exact[side + key] for key in keys.SIDE_ACCOUNTS if side + key in exact]
    accounts = dict.fromkeys(intern(account) for value in values if (account := without_blanks(value)))
    kpp = without_blanks(exact.get(side + keys.SIDE_KPP, "")) or kpp
    return Side(inn, kpp, tuple(accounts))


def _read_payer(block: Block, exact: dict[str, str]) -> Side:
    """Return the payer, with the INN in its name if there is no other; the purpose is never searched."""
    side = _read_side(exact, keys.PAYER)
    if side.inn is None and keys.PAYER + keys.SIDE_INN not in block.conflicts:
        for key in (keys.PAYER + suffix for suffix in keys.SIDE_NAMES):
            if inn := find_inn(exact.get(key, "")):
                return Side(inn, side.kpp, side.accounts, inn_from=key)
    return side


def _read_purpose(fields: dict[str, str]) -> str:
    purpose = fields.get(keys.PURPOSE) or " ".join(fields.get(key, "") for key in keys.PURPOSE_PARTS)
    return _WHITESPACE.sub(" ", purpose).strip()


def _read_uin(fields: dict[str, str]) -> str | None:
    """Return the UIN of a payment to the budget; zeros mean that there is none."""
    uin = fields.get(keys.UIN, "")
    return uin if uin.strip("0") else None
