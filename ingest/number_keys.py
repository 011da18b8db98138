"""Keys of a document number by which a webhook and a line agree in any spelling.

They are digests, so that every database compares them alike: a collation may equate й and и.
"""

import re
from hashlib import blake2b

DIGEST_CHARS = 32
_NOT_DIGITS = re.compile(r"[^0-9]+")


def number_key(number: str) -> str | None:
    """Return the key of a plain number: case-folded, without white space and leading zeros; None if empty."""
    return _digest(_plain(number))


def digits_key(number: str) -> str | None:
    """Return the key of a number's digits without leading zeros, so that PAY-328 and 328 agree.

    A number without digits has that of its plain number; the two kinds can't be equal.
    """
    plain = _plain(number)
    digits = _NOT_DIGITS.sub("", plain)
    return _digest((digits.lstrip("0") or "0") if digits else plain)


def digest(*parts: object) -> str:
    """Return a digest of `parts` that depends on where each ends."""
    return blake2b("\x1f".join(map(str, parts)).encode(), digest_size=DIGEST_CHARS // 2).hexdigest()


def _plain(number: str) -> str:
    plain = "".join(number.casefold().split())
    return plain.lstrip("0") or plain[:1]


def _digest(text: str) -> str | None:
    return digest(text) if text else None
