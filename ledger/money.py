"""Money is integer kopecks everywhere inside; rubles exist only at the edges."""

from decimal import Decimal

BALANCE_KOPECKS_MAX = 2**63 - 1  # what a BIGINT column holds


def rubles(kopecks: int) -> int | Decimal:
    """`kopecks` as exact rubles for JSON: a whole sum as an integer, any other with two decimals."""
    whole, rest = divmod(kopecks, 100)
    return Decimal(kopecks).scaleb(-2) if rest else whole


def format_rubles(kopecks: int) -> str:
    """`kopecks` as people read them, such as 145 000,00 ₽; its spaces don't break."""
    whole, rest = divmod(abs(kopecks), 100)
    sign = "−" if kopecks < 0 else ""
    return f"{sign}{group_digits(whole)},{rest:02}\N{NO-BREAK SPACE}₽"


def group_digits(number: int) -> str:
    """1234567 as people read it; its spaces don't break."""
    return f"{number:_}".replace("_", "\N{NO-BREAK SPACE}")
