"""A detected problem and its severity. Rules that detect problems: monitoring/problems.py."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from monitoring.stats import Stats


class Severity(IntEnum):
    INFO = 0
    OK = 1
    WARNING = 2
    CRITICAL = 3

    @property
    def label(self) -> str:
        """Return the name in lower case, as alert messages and the style sheet's classes have it."""
        return self.name.lower()


@dataclass(frozen=True)
class Problem:
    """A detected problem. `cause` identifies it for as long as it persists, while its text may change."""

    cause: str
    severity: Severity
    text: str
    remedy: str
    url: str = ""  # page of the admin
    detail: str = ""  # only for users with permission to view the rows at `url`
    magnitude: int = 1  # number of affected rows


Rule = Callable[[Stats], Iterator[Problem]]
