"""One design after the other under load, round by round: so a machine whose speed wanders is fair to all."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from bench.load import closed_loop, open_loop, p99_milliseconds
from bench.resource_usage import cpu_seconds_by_part
from bench.systems import InvalidRun, System, require_stored
from tests.harness.procfile_stack import ProcfileStack, migrated_data

Speeds = Mapping[System, Sequence[float]]  # webhooks answered 200 per second, one number a round
WARM_UP_SECONDS = 1


class EndpointBench:
    """All designs with only their doors running, and a count of what each has answered."""

    def __init__(self, houses: Mapping[System, ProcfileStack]) -> None:
        self.houses = houses
        # CPU time of each design's parts for each webhook it has answered, one number a round.
        self.microseconds: defaultdict[tuple[System, str], list[float]] = defaultdict(list)
        self._answered: Counter[System] = Counter()
        self._sent: Counter[System] = Counter()

    def speeds(self, *, rounds: int, seconds: int, say: Callable[[str], None]) -> Speeds:
        """What each door takes, round by round; after each the books are looked at. Raises InvalidRun."""
        for design in self.houses:
            self._load(design, WARM_UP_SECONDS)
        speeds: dict[System, list[float]] = {design: [] for design in self.houses}
        for number in range(1, rounds + 1):
            for design in self.houses:
                speeds[design].append(self._watched_load(design, seconds))
            for design in self.houses:
                self.require_exact(design)
            told = ", ".join(f"{design} {speeds[design][-1]:.0f}/s" for design in self.houses)
            say(f"round {number} of {rounds}: {told}")
        return speeds

    def _watched_load(self, design: System, seconds: int) -> float:
        before, answered = cpu_seconds_by_part(self.houses[design]), self._answered[design]
        speed = self._load(design, seconds)
        answered = self._answered[design] - answered
        for part, spent in cpu_seconds_by_part(self.houses[design]).items():
            self.microseconds[design, part].append(1e6 * (spent - before[part]) / answered)
        return speed

    def _load(self, design: System, seconds: int) -> float:
        """Webhooks answered 200 a second. What a slow door sheds meanwhile is asked of it for nothing."""
        answers = closed_loop(self.houses[design].port, seconds)
        self._count(design, answers.ok, answers.sent)
        return answers.ok_per_second

    def p99_milliseconds(self, design: System, *, per_second: float, seconds: float) -> float:
        """Of the answers at a fixed rate that this door can take. Raises InvalidRun."""
        sent = open_loop(self.houses[design].port, per_second=per_second, seconds=seconds)
        statuses = Counter(each.status for each in sent)
        ok = statuses.pop(200, 0)
        self._count(design, ok, len(sent))
        if statuses:
            raise InvalidRun(f"{design}: at a rate it can take, it also answered {dict(statuses)}")
        self.require_exact(design)
        return p99_milliseconds([each.seconds for each in sent])

    def _count(self, design: System, answered: int, sent: int) -> None:
        self._answered[design] += answered
        self._sent[design] += sent

    def require_exact(self, design: System) -> None:
        """What was answered 200 is stored, and the ledger is right. Raises InvalidRun."""
        if design is System.PARSING_ONLY:
            return
        stack = self.houses[design]
        require_stored(design.stored(stack), answered=self._answered[design], sent=self._sent[design])
        design.require_verified(stack)


@contextmanager
def endpoint_bench(*, embedded: bool = False) -> Iterator[EndpointBench]:
    migrated_data(embedded=embedded)  # once, before all take a copy at the same time
    houses = {design: design.stack(embedded=embedded, only_the_door=True) for design in System}
    with ExitStack() as resources:
        with ThreadPoolExecutor() as starting:
            list(starting.map(resources.enter_context, houses.values()))
        yield EndpointBench(houses)
