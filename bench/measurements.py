"""Measurements taken in rounds, and the bounds that they must keep."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Bound:
    """A lower or an upper bound of a measurement, inclusive."""

    limit: float
    at_least: bool

    def holds(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


def at_least(limit: float) -> Bound:
    return Bound(limit, at_least=True)


def at_most(limit: float) -> Bound:
    return Bound(limit, at_least=False)


@dataclass(frozen=True)
class Measurement:
    """Prihod's `values`, one a round, in `unit`.

    With `baseline`, the baseline design's values of the same rounds, the measurement is the ratio
    values/baseline, taken round by round, because the machine's speed varies between rounds.
    """

    measure: str  # such as "ingest"
    name: str  # such as "requests/s against parsing only"
    unit: str  # of values and baseline
    values: Sequence[float]
    baseline: Sequence[float] = ()
    bound: Bound | None = None  # None: reported without a bound

    @property
    def rounds(self) -> list[float]:
        if not self.baseline:
            return list(self.values)
        return [value / other for value, other in zip(self.values, self.baseline, strict=True)]

    @property
    def value(self) -> float:
        return median(self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        return min(self.rounds), max(self.rounds)

    @property
    def holds(self) -> bool:
        return self.bound is None or self.bound.holds(self.value)
