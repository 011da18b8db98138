"""What identifies a payment whose bank gives it another operation id: payer, number, day and amount.

T-Bank renames operations made between 22:00 and 03:00
(https://developer.tbank.ru/docs/products/account-info), and one payment may be delivered by two sources.
"""

from datetime import date
from hashlib import blake2b
from zoneinfo import ZoneInfo

from ledger.inn import is_suspense
from ledger.terms import PaymentTerms

# The banks' day. Not a setting: fingerprints are stored, and must not depend on when they were.
MOSCOW = ZoneInfo("Europe/Moscow")
_DAY_BITS, _HASH_BITS = 16, 47  # together a positive BIGINT; 16 bits of days reach into 2149


def identity(terms: PaymentTerms) -> tuple[str, str, date, int]:
    """Return the payer's INN, the document number's digits, the day in Moscow, and the kopecks.

    PAY-328, 0328 and 328 are one number. A number without digits other than 0 is compared as a whole.
    """
    digits = "".join(filter(str.isdecimal, terms.document_number)).lstrip("0")
    number = digits or "".join(terms.document_number.casefold().split())
    return terms.inn, number, terms.document_date.astimezone(MOSCOW).date(), terms.amount_kopecks


def payment_fingerprint(terms: PaymentTerms) -> int | None:
    """Return the day and a hash of `identity`; None in suspense, where the payer is unknown.

    The day comes first, so that the index of the fingerprints grows at its end, like the table.
    """
    if is_suspense(terms.inn):
        return None
    known = identity(terms)
    digest = int.from_bytes(blake2b(repr(known).encode(), digest_size=8).digest())
    day = (known[2].toordinal() - date(1970, 1, 1).toordinal()) % (1 << _DAY_BITS)
    return day << _HASH_BITS | digest >> (64 - _HASH_BITS)
