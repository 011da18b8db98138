"""Measurements and their rounds."""

import pytest

from bench.__main__ import merged
from bench.measurements import Bound, Measurement

AT_LEAST_3 = Bound(3, at_least=True)
AT_MOST_3 = Bound(3, at_least=False)


def test_ratio_is_taken_round_by_round() -> None:
    measurement = Measurement(
        "ingest", "requests/s", "requests/s", values=[10, 40, 90], baseline=[10, 20, 30]
    )

    assert measurement.rounds == [1, 2, 3]
    assert measurement.value == 2
    assert measurement.spread == (1, 3)


def test_unequal_numbers_of_rounds_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        _ = Measurement("ingest", "requests/s", "requests/s", values=[10, 40], baseline=[10]).rounds


def test_without_baseline_value_is_the_median() -> None:
    assert Measurement("latency", "p99", "ms", values=[5, 1, 9]).value == 5


@pytest.mark.parametrize(
    ("bound", "value", "holds"),
    [(AT_LEAST_3, 3, True), (AT_LEAST_3, 2.99, False), (AT_MOST_3, 3, True), (AT_MOST_3, 3.01, False)],
)
def test_bound_includes_its_limit(bound: Bound, value: float, holds: bool) -> None:
    assert Measurement("measure", "what", "ms", values=[value], bound=bound).holds is holds


def test_measurement_without_bound_always_holds() -> None:
    assert Measurement("embedded", "requests/s", "requests/s", values=[0]).holds


def test_merged_runs_have_the_rounds_of_both() -> None:
    first = [
        Measurement("ingest", "a", "ms", [1, 2], [3, 4], AT_LEAST_3),
        Measurement("ingest", "b", "ms", [5]),
    ]
    second = [
        Measurement("ingest", "a", "ms", [6, 7], [8, 9], AT_LEAST_3),
        Measurement("ingest", "b", "ms", [1]),
    ]

    a, b = merged([first, second])

    assert a == Measurement("ingest", "a", "ms", [1, 2, 6, 7], [3, 4, 8, 9], AT_LEAST_3)
    assert b.values == [5, 1]
