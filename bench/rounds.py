"""Interleaved rounds of load: each round measures every system once, so that changes of the machine's speed
affect all of them alike."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from bench.load import closed_loop, open_loop, p99_milliseconds
from bench.resource_usage import cpu_seconds_by_part
from bench.systems import InvalidRun, System, require_stored
from tests.harness.procfile_stack import ProcfileStack
from tests.harness.templates import template

WARM_UP_SECONDS = 2


class EndpointBench:
    """Systems with only their web processes running, and counts of what each has acknowledged.

    The figures have one number for each round.
    """

    def __init__(self, stacks: Mapping[System, ProcfileStack]) -> None:
        self.stacks = stacks
        self.per_second: dict[System, list[float]] = {system: [] for system in stacks}  # answered 200
        # CPU time by system and part for each acknowledged delivery.
        self.microseconds: defaultdict[tuple[System, str], list[float]] = defaultdict(list)
        self.sender_shares: list[float] = []  # of one core, with Prihod
        self._acknowledged: Counter[System] = Counter()
        self._sent: Counter[System] = Counter()

    def warm_up(self) -> None:
        for system in self.stacks:
            self._load(system, WARM_UP_SECONDS)

    def run_round(self, seconds: int) -> str:
        """Load each system and return the results in words. Raise InvalidRun if something was lost."""
        for system in self.stacks:
            before, acknowledged = cpu_seconds_by_part(self.stacks[system]), self._acknowledged[system]
            self.per_second[system].append(self._load(system, seconds))
            acknowledged = self._acknowledged[system] - acknowledged
            for part, used in cpu_seconds_by_part(self.stacks[system]).items():
                self.microseconds[system, part].append(1e6 * (used - before[part]) / acknowledged)
        for system in self.stacks:
            self._require_stored(system)
        return ", ".join(f"{system} {values[-1]:.0f}/s" for system, values in self.per_second.items())

    def _load(self, system: System, seconds: int) -> float:
        """Return the deliveries answered 200 a second; refused requests cost time and don't count."""
        result = closed_loop(self.stacks[system].port, seconds)
        self._count(system, result.ok, result.sent)
        if system is System.PRIHOD:
            self.sender_shares.append(result.sender_cpu_seconds / result.seconds)
        return result.ok_per_second

    def cpu_microseconds(self, system: System) -> list[float]:
        """Return the CPU time of web and database for each acknowledged delivery."""
        parts = [values for (other, _), values in self.microseconds.items() if other is system]
        return [sum(round_) for round_ in zip(*parts, strict=True)]

    def p99_milliseconds(self, system: System, *, per_second: float, seconds: float) -> float:
        """Return the p99 latency at a fixed rate. Raise InvalidRun if a request is not answered 200."""
        sent = open_loop(self.stacks[system].port, per_second=per_second, seconds=seconds)
        statuses = Counter(each.status for each in sent)
        ok = statuses.pop(200, 0)
        self._count(system, ok, len(sent))
        if statuses:
            raise InvalidRun(f"{system}: below its throughput, it also answered {dict(statuses)}")
        self._require_stored(system)
        return p99_milliseconds([each.seconds for each in sent])

    def _count(self, system: System, acknowledged: int, sent: int) -> None:
        self._acknowledged[system] += acknowledged
        self._sent[system] += sent

    def _require_stored(self, system: System) -> None:
        if not system.stores_nothing:
            stored = system.stored(self.stacks[system])
            require_stored(stored, acknowledged=self._acknowledged[system], sent=self._sent[system])

    def require_exact(self) -> None:
        """Raise InvalidRun unless everything answered 200 is stored and all ledgers are consistent."""
        for system, stack in self.stacks.items():
            self._require_stored(system)
            if not system.stores_nothing:
                system.require_verified(stack)


@contextmanager
def endpoint_bench(systems: Sequence[System], *, embedded: bool = False) -> Iterator[EndpointBench]:
    """Start the systems and warm them up."""
    template("sqlite" if embedded else "mariadb")  # once, before all stacks copy it at the same time
    stacks = {system: system.stack(embedded=embedded, only_web=True) for system in systems}
    with ExitStack() as resources:
        with ThreadPoolExecutor() as pool:
            list(pool.map(resources.enter_context, stacks.values()))
        bench = EndpointBench(stacks)
        bench.warm_up()
        yield bench
