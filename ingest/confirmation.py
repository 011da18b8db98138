"""The digest that binds a confirmation to the state its page showed."""

from collections.abc import Collection
from hashlib import blake2b


def digest(rows: Collection[tuple[object, ...]]) -> str:
    """Return a digest of the rows in their order, 32 hexadecimal digits; empty if there are none."""
    return blake2b(repr(list(rows)).encode(), digest_size=16).hexdigest() if rows else ""
