"""What a figure says of its rounds."""

import pytest

from bench.__main__ import joined
from bench.measurements import Bound, Measurement

AT_LEAST_3 = Bound(3, at_least=True)
AT_MOST_3 = Bound(3, at_least=False)


def test_a_ratio_is_taken_round_by_round() -> None:
    figure = Measurement("acknowledge", "requests/s", "requests/s", ours=[10, 40, 90], theirs=[10, 20, 30])

    assert figure.rounds == [1, 2, 3]
    assert figure.value == 2
    assert figure.spread == (1, 3)


def test_rounds_that_have_no_partner_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="shorter"):
        _ = Measurement("acknowledge", "requests/s", "requests/s", ours=[10, 40], theirs=[10]).rounds


def test_without_a_peer_the_figure_is_the_median_of_its_rounds() -> None:
    assert Measurement("latency", "p99", "ms", ours=[5, 1, 9]).value == 5


@pytest.mark.parametrize(
    ("bound", "value", "holds"),
    [(AT_LEAST_3, 3, True), (AT_LEAST_3, 2.99, False), (AT_MOST_3, 3, True), (AT_MOST_3, 3.01, False)],
)
def test_a_bound_includes_its_limit(bound: Bound, value: float, holds: bool) -> None:
    assert Measurement("measure", "what", "ms", ours=[value], bound=bound).holds is holds


def test_a_figure_without_a_bound_always_holds() -> None:
    assert Measurement("embedded", "requests/s", "requests/s", ours=[0]).holds


def test_a_measure_taken_twice_has_the_rounds_of_both() -> None:
    first = [
        Measurement("acknowledge", "a", "ms", [1, 2], [3, 4], AT_LEAST_3),
        Measurement("acknowledge", "b", "ms", [5]),
    ]
    second = [
        Measurement("acknowledge", "a", "ms", [6, 7], [8, 9], AT_LEAST_3),
        Measurement("acknowledge", "b", "ms", [1]),
    ]

    a, b = joined([first, second])

    assert a == Measurement("acknowledge", "a", "ms", [1, 2, 6, 7], [3, 4, 8, 9], AT_LEAST_3)
    assert b.ours == [5, 1]
