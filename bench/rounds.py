"""Interleaved rounds of load: each round measures every system once, so that changes of the machine's speed
affect all of them alike."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from bench.load import closed_loop, open_loop, p99_milliseconds
from bench.resource_usage import cpu_seconds_by_part
from bench.systems import InvalidRun, System, require_stored
from tests.harness.procfile_stack import ProcfileStack
from tests.harness.templates import template

Speeds = Mapping[System, Sequence[float]]  # webhooks answered 200 per second, one number a round
WARM_UP_SECONDS = 1


class EndpointBench:
    """All systems with only their web processes running, and counts of what each has acknowledged."""

    def __init__(self, stacks: Mapping[System, ProcfileStack]) -> None:
        self.stacks = stacks
        # CPU time by system and part for each acknowledged webhook, one number a round.
        self.microseconds: defaultdict[tuple[System, str], list[float]] = defaultdict(list)
        self._acknowledged: Counter[System] = Counter()
        self._sent: Counter[System] = Counter()

    def speeds(self, *, rounds: int, seconds: int, log: Callable[[str], None]) -> Speeds:
        """Return each system's throughput, round by round. Raise InvalidRun if a ledger is inconsistent."""
        for system in self.stacks:
            self._load(system, WARM_UP_SECONDS)
        speeds: dict[System, list[float]] = {system: [] for system in self.stacks}
        for number in range(1, rounds + 1):
            for system in self.stacks:
                speeds[system].append(self._load_and_record_cpu(system, seconds))
            for system in self.stacks:
                self.require_exact(system)
            results = ", ".join(f"{system} {speeds[system][-1]:.0f}/s" for system in self.stacks)
            log(f"round {number} of {rounds}: {results}")
        return speeds

    def _load_and_record_cpu(self, system: System, seconds: int) -> float:
        before, acknowledged = cpu_seconds_by_part(self.stacks[system]), self._acknowledged[system]
        speed = self._load(system, seconds)
        acknowledged = self._acknowledged[system] - acknowledged
        for part, used in cpu_seconds_by_part(self.stacks[system]).items():
            self.microseconds[system, part].append(1e6 * (used - before[part]) / acknowledged)
        return speed

    def _load(self, system: System, seconds: int) -> float:
        """Return the webhooks answered 200 a second; shed requests cost time and don't count."""
        result = closed_loop(self.stacks[system].port, seconds)
        self._count(system, result.ok, result.sent)
        return result.ok_per_second

    def p99_milliseconds(self, system: System, *, per_second: float, seconds: float) -> float:
        """Return the p99 latency at a fixed rate. Raise InvalidRun if a request is not answered 200."""
        sent = open_loop(self.stacks[system].port, per_second=per_second, seconds=seconds)
        statuses = Counter(each.status for each in sent)
        ok = statuses.pop(200, 0)
        self._count(system, ok, len(sent))
        if statuses:
            raise InvalidRun(f"{system}: below its throughput, it also answered {dict(statuses)}")
        self.require_exact(system)
        return p99_milliseconds([each.seconds for each in sent])

    def _count(self, system: System, acknowledged: int, sent: int) -> None:
        self._acknowledged[system] += acknowledged
        self._sent[system] += sent

    def require_exact(self, system: System) -> None:
        """Raise InvalidRun unless everything answered 200 is stored and the ledger is consistent."""
        if system is System.PARSING_ONLY:
            return
        stack = self.stacks[system]
        require_stored(system.stored(stack), acknowledged=self._acknowledged[system], sent=self._sent[system])
        system.require_verified(stack)


@contextmanager
def endpoint_bench(*, embedded: bool = False) -> Iterator[EndpointBench]:
    template("sqlite" if embedded else "mariadb")  # once, before all stacks copy it at the same time
    stacks = {system: system.stack(embedded=embedded, only_web=True) for system in System}
    with ExitStack() as resources:
        with ThreadPoolExecutor() as pool:
            list(pool.map(resources.enter_context, stacks.values()))
        yield EndpointBench(stacks)
