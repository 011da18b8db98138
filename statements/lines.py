"""Turn the documents of a statement file into lines of our own accounts."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from ingest.number_keys import digest, digits_key, number_key
from ledger.inn import suspense_key
from statements.documents import Document, Movement
from statements.field_values import currency_of, inn_problem
from statements.models import NUMBER_CHARS_MAX, OwnAccount, StatementLine
from statements.reading import StatementFile

_SIDE_CHARS_MAX = 64


def lines_of(file: StatementFile, accounts: Mapping[str, OwnAccount]) -> Iterator[tuple[int, StatementLine]]:
    """Yield each movement of `accounts` as an unsaved line, with the index of its document.

    A transfer between two of them yields a line of each.
    """
    ordinals: Counter[tuple[int, str]] = Counter()
    positions: defaultdict[tuple[int, object], int] = defaultdict(int)
    for document in file.documents:
        raw = file.text[document.terms.start : document.terms.end]
        for movement in document.movements:
            account = accounts[movement.account]
            line = _line(document, movement, account)
            ordinals[account.pk, line.fingerprint] += 1
            positions[account.pk, line.booked_on] += 1
            line.ordinal = ordinals[account.pk, line.fingerprint]
            line.position = positions[account.pk, line.booked_on]
            line.raw = raw
            yield document.index, line


def _line(document: Document, movement: Movement, account: OwnAccount) -> StatementLine:
    terms = document.terms
    if terms.date is None:
        raise AssertionError("a document without a date has errors, and moves nothing")
    side = StatementLine.Side.CREDIT if movement.is_credit else StatementLine.Side.DEBIT
    number = (terms.number or "")[:NUMBER_CHARS_MAX]
    booked_on = document.booked_on or terms.date
    is_ruble_credit = movement.is_credit and currency_of(account.number) == "RUB"
    sides = (terms.payer.inn, document.payer_account, terms.payee.inn, document.payee_account)
    return StatementLine(
        account=account,
        fingerprint=digest(side.value, number, terms.date, booked_on, movement.kopecks, *sides),
        side=side,
        date=terms.date,
        booked_on=booked_on,
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
    )


def _inn(document: Document, movement: Movement) -> str | None:
    """Return the INN by which a credit is matched; own money, which is not to be credited, has none."""
    if document.payer_is_owner or document.direction != "in":
        return None
    inn = document.terms.payer.inn
    return suspense_key(movement.account) if inn_problem(inn) else inn
