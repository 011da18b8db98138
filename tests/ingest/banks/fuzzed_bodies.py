"""Bodies that a bank would not send: garbage, and samples of which any value at any depth is replaced."""

import json
from typing import Any

from hypothesis import strategies as st

from tests.ingest.banks.conftest import load_sample

_numbers = st.integers() | st.floats()
_texts = st.text(max_size=80) | st.sampled_from(
    [
        *("0", "1e999999", "-1", "٣", "\0", "9999-12-31", "NaN", "0" * 12, "\ud800", "\ufeff", "\u202e"),
        *("Сredit", "ＤＥＢＩＴ", "руб", "₽", "643.0", "12345", "2024-04-27T24:00:00Z", "incomingPayment"),
    ]
)
_anything = st.recursive(
    st.none() | st.booleans() | _numbers | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def fuzzed_body(name: str) -> st.SearchStrategy[bytes]:
    told = load_sample(name)
    places = [(field,) for field in told]
    places += [(field, inner) for field, value in told.items() if isinstance(value, dict) for inner in value]
    altered = st.dictionaries(st.sampled_from(places), _anything, max_size=3).map(
        lambda changes: json.dumps(_replaced(json.loads(json.dumps(told)), changes)).encode()
    )
    return st.binary(max_size=200) | _anything.map(lambda value: json.dumps(value).encode()) | altered


def _replaced(told: dict[str, Any], changes: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    for place, value in sorted(changes.items(), key=lambda change: -len(change[0])):  # the deep ones first
        (told if len(place) == 1 else told[place[0]])[place[-1]] = value
    return told
