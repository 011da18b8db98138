"""Money is integer kopecks everywhere inside; rubles exist only at the edges."""

from decimal import Decimal

BALANCE_KOPECKS_MAX = 2**63 - 1  # the range of a BIGINT column


def rubles(kopecks: int) -> int | Decimal:
    """Return `kopecks` as exact rubles for JSON: an integer if whole, otherwise with two decimals."""
    whole, rest = divmod(kopecks, 100)
    return Decimal(kopecks).scaleb(-2) if rest else whole


def format_rubles(kopecks: int) -> str:
    """Return `kopecks` for people, such as 145 000,00 ₽, with no-break spaces."""
    whole, rest = divmod(abs(kopecks), 100)
    sign = "−" if kopecks < 0 else ""
    return f"{sign}{group_digits(whole)},{rest:02}\N{NO-BREAK SPACE}₽"


def group_digits(number: int) -> str:
    """Return `number` in groups of three digits, with no-break spaces."""
    return f"{number:_}".replace("_", "\N{NO-BREAK SPACE}")
