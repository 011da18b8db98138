"""Who brings the bad days: strikes at moments that the seed decides, and remembers each."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass
class Nemesis:
    """`schedule` is what it planned, and repeats with the seed; `strikes` is what it did, in seconds."""

    chance: random.Random
    schedule: list[float] = field(default_factory=list)
    strikes: list[tuple[float, str]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def moments(self, count: int, seconds: float) -> Iterator[int]:
        """Come back `count` times, at moments spread over the next `seconds`, each in its own stretch."""
        stretch = seconds / count
        waits = [(number + self.chance.random()) * stretch for number in range(count)]
        self.schedule += [round(wait, 3) for wait in waits]
        begun = time.monotonic()
        for number, wait in enumerate(waits):
            time.sleep(max(0.0, begun + wait - time.monotonic()))
            yield number

    def strike(self, what: str, action: Callable[..., object], *arguments: object) -> None:
        self.strikes.append((round(time.monotonic() - self.began, 3), what))
        action(*arguments)
