"""One design after the other under load, round by round: so a machine whose speed wanders is fair to all."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from bench.consuming import cpu_seconds_by_part
from bench.designs import Design, DoesNotCount, require_stored
from bench.load import closed_loop, open_loop, p99_milliseconds
from faults.house import House, migrated

Speeds = Mapping[Design, Sequence[float]]  # webhooks answered 200 per second, one number a round
WARM_UP_SECONDS = 1


class Doors:
    """All designs with only their doors running, and a count of what each has answered."""

    def __init__(self, houses: Mapping[Design, House]) -> None:
        self.houses = houses
        # CPU time of each design's parts for each webhook it has answered, one number a round.
        self.microseconds: defaultdict[tuple[Design, str], list[float]] = defaultdict(list)
        self._answered: Counter[Design] = Counter()
        self._sent: Counter[Design] = Counter()

    def speeds(self, *, rounds: int, seconds: int, say: Callable[[str], None]) -> Speeds:
        """What each door takes, round by round; after each the books are looked at. Raises DoesNotCount."""
        for design in self.houses:
            self._load(design, WARM_UP_SECONDS)
        speeds: dict[Design, list[float]] = {design: [] for design in self.houses}
        for number in range(1, rounds + 1):
            for design in self.houses:
                speeds[design].append(self._watched_load(design, seconds))
            for design in self.houses:
                self.require_exact(design)
            told = ", ".join(f"{design} {speeds[design][-1]:.0f}/s" for design in self.houses)
            say(f"round {number} of {rounds}: {told}")
        return speeds

    def _watched_load(self, design: Design, seconds: int) -> float:
        before, answered = cpu_seconds_by_part(self.houses[design]), self._answered[design]
        speed = self._load(design, seconds)
        answered = self._answered[design] - answered
        for part, spent in cpu_seconds_by_part(self.houses[design]).items():
            self.microseconds[design, part].append(1e6 * (spent - before[part]) / answered)
        return speed

    def _load(self, design: Design, seconds: int) -> float:
        """Webhooks answered 200 a second. What a slow door sheds meanwhile is asked of it for nothing."""
        answers = closed_loop(self.houses[design].port, seconds)
        self._count(design, answers.ok, answers.sent)
        return answers.ok_per_second

    def p99_milliseconds(self, design: Design, *, per_second: float, seconds: float) -> float:
        """Of the answers at a fixed rate that this door can take. Raises DoesNotCount."""
        sent = open_loop(self.houses[design].port, per_second=per_second, seconds=seconds)
        statuses = Counter(each.status for each in sent)
        ok = statuses.pop(200, 0)
        self._count(design, ok, len(sent))
        if statuses:
            raise DoesNotCount(f"{design}: at a rate it can take, it also answered {dict(statuses)}")
        self.require_exact(design)
        return p99_milliseconds([each.seconds for each in sent])

    def _count(self, design: Design, answered: int, sent: int) -> None:
        self._answered[design] += answered
        self._sent[design] += sent

    def require_exact(self, design: Design) -> None:
        """What was answered 200 is stored, and the ledger is right. Raises DoesNotCount."""
        if design is Design.PARSING_ONLY:
            return
        house = self.houses[design]
        require_stored(design.stored(house), answered=self._answered[design], sent=self._sent[design])
        design.require_verified(house)


@contextmanager
def doors(*, embedded: bool = False) -> Iterator[Doors]:
    migrated(embedded=embedded)  # once, before all take a copy at the same time
    houses = {design: design.house(embedded=embedded, only_the_door=True) for design in Design}
    with ExitStack() as stack:
        with ThreadPoolExecutor() as starting:
            list(starting.map(stack.enter_context, houses.values()))
        yield Doors(houses)
