"""Parse the values of a statement's fields: amounts, dates, times, accounts and INNs. None of these guesses.

Each takes the text of a field and returns None for what it does not recognize.
"""

import re
from datetime import date, time
from functools import lru_cache

from ledger.inn import is_inn
from ledger.money import BALANCE_KOPECKS_MAX

BLANKS = " \t\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{FIGURE SPACE}"
_WITHOUT_BLANKS = str.maketrans("", "", BLANKS)
_AMOUNT = re.compile(r"(-?)([0-9]+)(?:[.,]([0-9]+))?")
_DATE = re.compile(r"([0-9]{2})\.([0-9]{2})\.([0-9]{4})")
_TIME = re.compile(r"([0-9]{1,2})[:.]([0-9]{2})(?:[:.]([0-9]{2}))?")
_INN_IN_NAME = re.compile(r"\bИНН[ :№\xa0]{0,3}([0-9]{12}|[0-9]{10})(?![0-9])", re.IGNORECASE)
_RUBLE_DIGITS_MAX = len(str(BALANCE_KOPECKS_MAX // 100))
# Digits 6 to 8 of a Russian account are its currency's code in ISO 4217; 810 remains in use for the ruble.
_CURRENCIES = {
    **dict.fromkeys(("810", "643"), "RUB"),
    **dict(zip(("840", "978", "156", "398", "933"), ("USD", "EUR", "CNY", "KZT", "BYN"), strict=True)),
}
_CURRENCIES_BY_COUNTRY = {"KZ": "KZT", "BY": "BYN"}


class InvalidAmount(Exception):
    """The text is no amount; `code` says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def without_blanks(text: str) -> str:
    """Return `text` without spaces, tabs and no-break spaces; line ends stay."""
    return text if text.isalnum() else text.translate(_WITHOUT_BLANKS)  # most texts have none


def parse_amount(text: str) -> int:
    """Return the amount in hundredths of the account's currency, negative with a minus sign.

    Raise InvalidAmount with the code amount_missing, amount_invalid or amount_decimals.
    """
    match = _AMOUNT.fullmatch(text)
    if not match:
        text = without_blanks(text)
        match = _AMOUNT.fullmatch(text)
    if not text:
        raise InvalidAmount("amount_missing")
    if not match:
        raise InvalidAmount("amount_invalid")
    sign, whole, decimals = match[1], match[2].lstrip("0"), match[3] or ""
    if decimals[2:].strip("0"):
        raise InvalidAmount("amount_decimals")
    if len(whole) > _RUBLE_DIGITS_MAX:
        raise InvalidAmount("amount_invalid")
    kopecks = int(whole + decimals[:2].ljust(2, "0"))
    if kopecks > BALANCE_KOPECKS_MAX:
        raise InvalidAmount("amount_invalid")
    return -kopecks if sign else kopecks


def parse_balance(text: str) -> int | None:
    """Return a balance or turnover in hundredths of the currency, None if missing or no amount."""
    try:
        return parse_amount(text)
    except InvalidAmount:
        return None


def parse_date(text: str) -> date | None:
    """Return the date of 31.12.2026."""
    return _date_of(text) if len(text) == len("31.12.2026") else None


@lru_cache(maxsize=1000)  # a file has few different ones
def _date_of(text: str) -> date | None:
    match = _DATE.fullmatch(text)
    if not match:
        return None
    try:
        return date(int(match[3]), int(match[2]), int(match[1]))
    except ValueError:
        return None


def parse_time(text: str) -> time | None:
    """Return the time of 9:15, 09:15:30 or 09.15.30."""
    match = _TIME.fullmatch(text)
    if not match:
        return None
    try:
        return time(int(match[1]), int(match[2]), int(match[3] or 0))
    except ValueError:
        return None


def split_inn(text: str) -> tuple[str | None, str | None]:
    """Return (INN, KPP) of a field with the INN, or with «INN/KPP» or «INN\\KPP»."""
    inn, _, kpp = without_blanks(text).replace("\\", "/").partition("/")
    return inn or None, kpp or None


def find_inn(name: str) -> str | None:
    """Return the 10 or 12 digits after «ИНН» in a payer's name."""
    match = _INN_IN_NAME.search(name)
    return match[1] if match else None


def inn_problem(inn: str | None) -> str | None:
    """Return why no organization can be found by `inn`: inn_missing, inn_zero, inn_not_digits, inn_length."""
    if inn is None:
        return "inn_missing"
    if not inn.strip("0"):
        return "inn_zero"
    if not (inn.isascii() and inn.isdigit()):
        return "inn_not_digits"
    return None if is_inn(inn) else "inn_length"


def currency_of(account: str) -> str | None:
    """Return the currency of an account or IBAN: its letters in ISO 4217, or digits not known here."""
    if len(account) == 20 and account.isascii() and account.isdigit():
        return _CURRENCIES.get(account[5:8], account[5:8])
    return _CURRENCIES_BY_COUNTRY.get(account[:2].upper())
