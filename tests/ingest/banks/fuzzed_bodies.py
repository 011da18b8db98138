"""Fuzzed bodies: garbage, and samples with values replaced at any depth."""

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
    event = load_sample(name)
    paths = [(field,) for field in event]
    paths += [(field, inner) for field, value in event.items() if isinstance(value, dict) for inner in value]
    mutated = st.dictionaries(st.sampled_from(paths), _anything, max_size=3).map(
        lambda changes: json.dumps(_replaced(json.loads(json.dumps(event)), changes)).encode()
    )
    return st.binary(max_size=200) | _anything.map(lambda value: json.dumps(value).encode()) | mutated


def _replaced(event: dict[str, Any], changes: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    for path, value in sorted(changes.items(), key=lambda change: -len(change[0])):  # nested fields first
        (event if len(path) == 1 else event[path[0]])[path[-1]] = value
    return event
