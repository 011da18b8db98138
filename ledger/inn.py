"""The INN, a Russian taxpayer number: 10 digits for a company, 12 for a person.

Check digits after the Federal Tax Service's order ММВ-7-6/435@ of 29.06.2012, appendix. Wrong check digits
mark an organization as suspicious and never refuse a payment: banks' own samples fail them.
"""

import re

_WEIGHTS = (3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8)
PATTERN = "^(?:[0-9]{10}|[0-9]{12})$"  # in the syntax of JSON Schema
_SHAPE = re.compile(PATTERN)


# A suspense account takes the place of an organization for money whose payer names no INN: невыясненные
# поступления. Its key stands where an INN would: @ and our account that the money came to.
SUSPENSE_PREFIX = "@"
KEY_CHARS_MAX = 21
_ACCOUNT = re.compile("[0-9]{20}")


def suspense_key(account: object) -> str:
    """Return the key of the suspense account for our `account`, or of the one for unknown accounts."""
    known = isinstance(account, str) and _ACCOUNT.fullmatch(account)
    return f"{SUSPENSE_PREFIX}{account if known else 'unknown'}"


UNKNOWN_ACCOUNT = suspense_key(None)


def is_suspense(key: str) -> bool:
    return key.startswith(SUSPENSE_PREFIX)


def is_inn(text: str) -> bool:
    """Return whether `text` has the shape of an INN: exactly 10 or 12 ASCII digits."""
    return _SHAPE.fullmatch(text) is not None


def is_checksum_valid(inn: str) -> bool:
    """Return whether the check digits of `inn` are right: the last of 10 digits, or the last two of 12."""
    positions = (9,) if len(inn) == 10 else (10, 11)
    return all(_check_digit(inn[:position]) == inn[position] for position in positions)


def _check_digit(digits: str) -> str:
    weights = _WEIGHTS[-len(digits) :]
    total = sum(weight * int(digit) for weight, digit in zip(weights, digits, strict=True))
    return str(total % 11 % 10)
