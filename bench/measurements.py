"""What a measurement comes to: figures taken round by round, and what they must be."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Bound:
    """What a figure must keep: at least, or at most."""

    limit: float
    at_least: bool

    def holds(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@dataclass(frozen=True)
class Measurement:
    """`ours`, one value a round, in `unit`. With `theirs`, the peer's values of the same rounds, the figure
    is the ratio ours/theirs, taken round by round, because the machine's speed wanders between rounds.
    """

    measure: str  # such as "acknowledge"
    what: str  # such as "requests/s against a view that only parses"
    unit: str  # of ours and theirs
    ours: Sequence[float]
    theirs: Sequence[float] = ()
    bound: Bound | None = None  # None: reported, with no bar

    @property
    def rounds(self) -> list[float]:
        if not self.theirs:
            return list(self.ours)
        return [mine / other for mine, other in zip(self.ours, self.theirs, strict=True)]

    @property
    def value(self) -> float:
        return median(self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        return min(self.rounds), max(self.rounds)

    @property
    def holds(self) -> bool:
        return self.bound is None or self.bound.holds(self.value)
