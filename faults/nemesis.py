"""Inject faults at moments determined by the seed, and record them."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass
class Nemesis:
    """`schedule` is the plan, which repeats with the seed; `injected` records what was done, in seconds."""

    rng: random.Random
    schedule: list[float] = field(default_factory=list)
    injected: list[tuple[float, str]] = field(default_factory=list)
    started_at: float = field(default_factory=time.monotonic)

    def moments(self, count: int, seconds: float) -> Iterator[int]:
        """Yield `count` times within the next `seconds`, at one random moment of each equal interval."""
        interval = seconds / count
        waits = [(number + self.rng.random()) * interval for number in range(count)]
        self.schedule += [round(wait, 3) for wait in waits]
        start = time.monotonic()
        for number, wait in enumerate(waits):
            time.sleep(max(0.0, start + wait - time.monotonic()))
            yield number

    def inject(self, description: str, action: Callable[..., object], *arguments: object) -> None:
        self.injected.append((round(time.monotonic() - self.started_at, 3), description))
        action(*arguments)
