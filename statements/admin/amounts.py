"""Amounts and account numbers for people."""

from ledger.money import format_rubles
from statements.field_values import currency_of

_RUBLE = "\N{NO-BREAK SPACE}₽"


def format_amount(hundredths: int | None, account: str) -> str:
    """Return an amount in the account's currency, or a dash for a missing one."""
    if hundredths is None:
        return "–"
    currency = currency_of(account)
    text = format_rubles(hundredths)
    return text if currency in {"RUB", None} else f"{text.removesuffix(_RUBLE)}\N{NO-BREAK SPACE}{currency}"


def group_account(number: str) -> str:
    """Return the twenty digits of a Russian account as 40702 810 9 0000 0000001, others as they are."""
    if len(number) != 20:
        return number
    parts = number[:5], number[5:8], number[8], number[9:13], number[13:]
    return "\N{NO-BREAK SPACE}".join(parts)
