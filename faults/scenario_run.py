"""Run one scenario from its first delivery to its verdict."""

import random
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from faults.checker import check
from faults.nemesis import Nemesis
from tests.harness.bank_client import DeliveredTerms, DeliveryGenerator, DeliveryMix, RecordingBank, retries
from tests.harness.procfile_stack import ProcfileStack
from tests.harness.servers import ROOT
from tests.harness.wait import WaitTimeout, wait_until

RESULTS = ROOT / "faults" / "results"
DRAIN_SECONDS_MAX = 90.0  # longer than the database keeps sessions of vanished clients
LATENCY_RATIO_MAX = 2.0  # p99 during the fault divided by p99 before
LATENCY_FLOOR_SECONDS = 0.1  # below this, the machine's load dominates


@dataclass(frozen=True)
class TimeSpan:
    """A time span in seconds of the monotonic clock."""

    since: float
    until: float


@dataclass
class ScenarioRun:
    """A running scenario. `violations` are those that the scenario itself detects."""

    stack: ProcfileStack
    bank: RecordingBank
    nemesis: Nemesis
    rng: random.Random
    must_fail: Callable[[DeliveredTerms], bool] = lambda terms: False
    violations: list[str] = field(default_factory=list)
    drain_seconds: float = 0.0
    bank_retries: bool = True
    notes: list[str] = field(default_factory=list)  # figures for the report

    def require(self, condition: object, violation: str) -> None:
        if not condition:
            self.violations.append(violation)

    def inject(self, fault: str, action: Callable[..., object], *arguments: object) -> None:
        self.nemesis.inject(fault, action, *arguments)

    def moments(self, count: int, seconds: float = 6.0) -> Any:
        return self.nemesis.moments(count, seconds)

    def arm(self, step: str, action: str) -> None:
        """Arm a failpoint: the next process that reaches this step performs the action."""
        self.inject(f"{step}.{action}", (self.stack.folder / f"{step}.{action}").touch)

    def has_fired(self, step: str, action: str) -> bool:
        return not (self.stack.folder / f"{step}.{action}").exists()

    def observe(self, seconds: float) -> TimeSpan:
        """Let time pass; return the time span."""
        since = time.monotonic()
        time.sleep(seconds)
        return TimeSpan(since, time.monotonic())

    def require_latency_as_in(self, calm: TimeSpan, faulty: TimeSpan) -> None:
        """P6: every request gets a response, and none is slow."""
        during = [each for each in list(self.bank.history) if faulty.since <= each.started_at < faulty.until]
        wait_until(lambda: not any(attempt.pending for attempt in during), "every delivery has an outcome")
        no_response = sum(attempt.outcome not in ("ok", "refused") for attempt in during)
        self.require(
            not no_response, f"{no_response} of {len(during)} deliveries got no response during the fault"
        )
        p99_max = max(LATENCY_RATIO_MAX * self.p99(calm), LATENCY_FLOOR_SECONDS)
        p99 = self.p99(faulty)
        self.require(
            p99 <= p99_max, f"p99 {p99 * 1000:.0f} ms during the fault, {p99_max * 1000:.0f} ms allowed"
        )

    def p99(self, span: TimeSpan) -> float:
        latencies = self.bank.latencies(span.since, span.until)
        return latencies[int(len(latencies) * 0.99)] if latencies else 0.0

    def drain(self) -> None:
        """End all faults, let the bank retry unknown outcomes, and wait for an empty backlog."""
        start = time.monotonic()
        self.stack.heal()
        self.bank.close()
        if self.bank_retries:
            for delivery in retries(self.bank.history, self.rng):
                self.bank.deliver(delivery)
        wait_until(lambda: not self.stack.received(), "no webhook is left received", DRAIN_SECONDS_MAX)
        self.drain_seconds = max(self.drain_seconds, time.monotonic() - start)


@dataclass(frozen=True)
class Scenario:
    name: str
    description: str
    action: Callable[[ScenarioRun], None]
    stack: Mapping[str, Any]
    mix: DeliveryMix
    rate: float  # deliveries per second
    missing: Callable[[], str | None]  # what this machine lacks for it
    exclusive: bool  # it judges by seconds, so it must not run in parallel


@dataclass(frozen=True)
class Result:
    scenario: str
    seed: int
    requests: int
    ok: int
    refused: int
    unknown: int
    reads: int
    injected: Sequence[tuple[float, str]]
    schedule: Sequence[float]
    drain_seconds: float
    seconds: float
    violations: Sequence[str]
    notes: Sequence[str] = ()
    rate: int = 0  # deliveries per second, the median


def run_scenario(scenario: Scenario, seed: int, bug: str = "", bug_sql: str = "") -> Result:
    """Run `scenario` once. `bug` names a bug of faults/failpoints.py, `bug_sql` drops a key."""
    start = time.monotonic()
    rng = random.Random(f"{seed} {scenario.name}")
    settings = dict(scenario.stack)
    if bug:
        settings["environment"] = {**settings.get("environment", {}), **failpoint_environment(bug)}
    with ProcfileStack(**settings) as stack:
        if bug_sql:
            stack.sql(bug_sql)
        bank = RecordingBank(stack.url_port, DeliveryGenerator(rng, scenario.mix), rate=scenario.rate)
        run = ScenarioRun(stack, bank, Nemesis(random.Random(rng.random())), random.Random(rng.random()))
        try:
            bank.open()
            scenario.action(run)
            run.drain()
            run.violations += check(stack, bank, run.must_fail)
        except WaitTimeout as exc:
            run.violations.append(str(exc))
        except Exception:  # noqa: BLE001 a failing scenario must not end the others
            run.violations.append(f"the scenario itself failed: {traceback.format_exc()}")
        finally:
            bank.close()
        if run.violations:
            stack.save_logs(RESULTS / "logs" / f"{bug or scenario.name}-{seed}")
        return _result(scenario, seed, run, time.monotonic() - start)


def failpoint_environment(bug: str = "") -> dict[str, str]:
    """Return the environment in which the processes load faults/failpoints.py."""
    return {"DJANGO_SETTINGS_MODULE": "faults.settings", "FAULTS_SEEDED_BUG": bug}


def _result(scenario: Scenario, seed: int, run: ScenarioRun, seconds: float) -> Result:
    bank = run.bank
    return Result(
        scenario.name,
        seed,
        len(bank.history),
        bank.count("ok"),
        bank.count("refused"),
        bank.count("unknown"),
        bank.reads,
        run.nemesis.injected,
        run.nemesis.schedule,
        round(run.drain_seconds, 2),
        round(seconds, 1),
        run.violations,
        run.notes,
        bank.rate(),
    )
