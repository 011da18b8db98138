"""Turn the documents of a statement file into lines of our own accounts."""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date
from typing import NamedTuple

from ingest.number_keys import digest, digits_key, number_key
from ledger.inn import suspense_key
from statements.documents import Document, Movement
from statements.field_values import currency_of, inn_problem
from statements.models import NUMBER_CHARS_MAX, OwnAccount, StatementLine
from statements.reading import StatementFile

_SIDE_CHARS_MAX = 64

LineKey = tuple[int, str, int]  # account, fingerprint, ordinal


class FoundLine(NamedTuple):
    """A movement of one of our accounts in a file: which line it is, and where.

    `ordinal` counts equal lines of the file, `position` the lines of its account and day, both from 1.
    """

    document: Document
    movement: Movement
    account: OwnAccount
    booked_on: date
    fingerprint: str
    ordinal: int
    position: int

    @property
    def key(self) -> LineKey:
        return self.account.pk, self.fingerprint, self.ordinal


def lines_of(file: StatementFile, accounts: Mapping[str, OwnAccount]) -> Iterator[FoundLine]:
    """Yield each movement of `accounts`. A transfer between two of them yields a line of each."""
    ordinals: Counter[tuple[int, str]] = Counter()
    positions: Counter[tuple[int, date]] = Counter()
    for document in file.documents:
        for movement in document.movements:
            account = accounts[movement.account]
            booked_on = document.booked_on or _date(document)
            fingerprint = _fingerprint(document, movement, booked_on)
            ordinals[account.pk, fingerprint] += 1
            positions[account.pk, booked_on] += 1
            numbers = ordinals[account.pk, fingerprint], positions[account.pk, booked_on]
            yield FoundLine(document, movement, account, booked_on, fingerprint, *numbers)


def _date(document: Document) -> date:
    if document.terms.date is None:
        raise AssertionError("a document without a date has errors, and moves nothing")
    return document.terms.date


def _side(movement: Movement) -> StatementLine.Side:
    return StatementLine.Side.CREDIT if movement.is_credit else StatementLine.Side.DEBIT


def _number(document: Document) -> str:
    return (document.terms.number or "")[:NUMBER_CHARS_MAX]


def _fingerprint(document: Document, movement: Movement, booked_on: date) -> str:
    terms = document.terms
    sides = (terms.payer.inn, document.payer_account, terms.payee.inn, document.payee_account)
    side, number = _side(movement).value, _number(document)
    return digest(side, number, _date(document), booked_on, movement.kopecks, *sides)


def new_line(found: FoundLine, text: str) -> StatementLine:
    """Return `found` in the file's `text` as an unsaved line."""
    document, movement, account = found.document, found.movement, found.account
    terms, number = document.terms, _number(document)
    is_ruble_credit = movement.is_credit and currency_of(account.number) == "RUB"
    return StatementLine(
        account=account,
        fingerprint=found.fingerprint,
        ordinal=found.ordinal,
        position=found.position,
        side=_side(movement),
        date=_date(document),
        booked_on=found.booked_on,
        kopecks=abs(movement.kopecks),
        credit_kopecks=movement.kopecks if is_ruble_credit else 0,
        is_reversal=movement.kopecks < 0,
        number=number,
        number_key=number_key(number),
        digits_key=digits_key(number),
        inn=_inn(document, movement) if is_ruble_credit else None,
        not_creditable=document.not_creditable or "",
        payer_inn=(terms.payer.inn or "")[:_SIDE_CHARS_MAX],
        payer_account=(document.payer_account or "")[:_SIDE_CHARS_MAX],
        payee_inn=(terms.payee.inn or "")[:_SIDE_CHARS_MAX],
        payee_account=(document.payee_account or "")[:_SIDE_CHARS_MAX],
        purpose=terms.purpose,
        kind=terms.kind[:255],
        uin=(terms.uin or "")[:255],
        raw=text[terms.start : terms.end],
    )


def _inn(document: Document, movement: Movement) -> str | None:
    """Return the INN by which a credit is matched; own money, which is not to be credited, has none."""
    if document.payer_is_owner or document.direction != "in":
        return None
    inn = document.terms.payer.inn
    return suspense_key(movement.account) if inn_problem(inn) else inn
