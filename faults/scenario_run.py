"""One scenario from its first delivery to its verdict."""

import random
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from faults.checker import check
from faults.nemesis import Nemesis
from tests.harness.bank_client import DeliveredTerms, DeliveryGenerator, DeliveryMix, RecordingBank, resent
from tests.harness.procfile_stack import ProcfileStack, StackFailed, wait_until
from tests.harness.servers import ROOT

RESULTS = ROOT / "faults" / "results"
QUIET_SECONDS_MAX = 90.0  # longer than the database keeps sessions of clients that vanished
LATENCY_RATIO_MAX = 2.0  # the p99 in bad days over the p99 in calm ones
LATENCY_FLOOR_SECONDS = 0.1  # below it a busy machine says more than the house does


@dataclass(frozen=True)
class TimeSpan:
    """From when to when, in seconds of the monotonic clock."""

    since: float
    until: float


@dataclass
class ScenarioRun:
    """What a scenario acts upon. `broken` is what it saw itself that may not be."""

    stack: ProcfileStack
    bank: RecordingBank
    nemesis: Nemesis
    chance: random.Random
    must_fail: Callable[[DeliveredTerms], bool] = lambda terms: False
    broken: list[str] = field(default_factory=list)
    quiet_seconds: float = 0.0
    bank_tries_again: bool = True

    def require(self, holds: object, sentence: str) -> None:
        if not holds:
            self.broken.append(sentence)

    def strike(self, what: str, action: Callable[..., object], *arguments: object) -> None:
        self.nemesis.strike(what, action, *arguments)

    def moments(self, count: int, seconds: float = 6.0) -> Any:
        return self.nemesis.moments(count, seconds)

    def arm(self, window: str, action: str) -> None:
        """Have the next process that comes to this window act there."""
        self.strike(f"{window}.{action}", (self.stack.folder / f"{window}.{action}").touch)

    def struck(self, window: str, action: str) -> bool:
        return not (self.stack.folder / f"{window}.{action}").exists()

    def watch(self, seconds: float) -> TimeSpan:
        """Let time pass; which it was."""
        since = time.monotonic()
        time.sleep(seconds)
        return TimeSpan(since, time.monotonic())

    def require_answers_as_in(self, calm: TimeSpan, bad: TimeSpan) -> None:
        """P6: every answer is an answer, and none of them is slow."""
        during = [e for e in list(self.bank.log) if bad.since <= e.began < bad.until]
        wait_until(lambda: not any(entry.pending for entry in during), "every delivery is heard of")
        unanswered = sum(entry.outcome not in ("ok", "refused") for entry in during)
        self.require(
            not unanswered, f"{unanswered} of {len(during)} deliveries got no answer in the bad time"
        )
        allowed = max(LATENCY_RATIO_MAX * self.p99(calm), LATENCY_FLOOR_SECONDS)
        p99 = self.p99(bad)
        self.require(
            p99 <= allowed, f"p99 {p99 * 1000:.0f} ms in the bad time, {allowed * 1000:.0f} ms allowed"
        )

    def p99(self, span: TimeSpan) -> float:
        latencies = self.bank.latencies(span.since, span.until)
        return latencies[int(len(latencies) * 0.99)] if latencies else 0.0

    def quiet(self) -> None:
        """Heal, let the bank try again what it is unsure of, and wait until every webhook came to its end."""
        begun = time.monotonic()
        self.stack.heal()
        self.bank.close()
        if self.bank_tries_again:
            for delivery in resent(self.bank.log, self.chance):
                self.bank.deliver(delivery)
        wait_until(lambda: not self.stack.received(), "nothing is left received", QUIET_SECONDS_MAX)
        self.quiet_seconds = max(self.quiet_seconds, time.monotonic() - begun)


@dataclass(frozen=True)
class Scenario:
    name: str
    sentence: str
    action: Callable[[ScenarioRun], None]
    stack: Mapping[str, Any]
    mix: DeliveryMix
    rate: float  # deliveries per second
    lacks: Callable[[], str | None]  # what this machine doesn't have for it
    alone: bool  # it judges by seconds, so nothing else may run beside it


@dataclass(frozen=True)
class Result:
    scenario: str
    seed: int
    requests: int
    ok: int
    refused: int
    unknown: int
    reads: int
    strikes: Sequence[tuple[float, str]]
    schedule: Sequence[float]
    quiet_seconds: float
    seconds: float
    broken: Sequence[str]


def run_scenario(scenario: Scenario, seed: int, plant: str = "", plant_sql: str = "") -> Result:
    """Run `scenario` once. `plant` names a bug in faults/failpoints.py, `plant_sql` takes a key away."""
    begun = time.monotonic()
    chance = random.Random(f"{seed} {scenario.name}")
    settings = dict(scenario.stack)
    if plant:
        settings["environment"] = {**settings.get("environment", {}), **failpoint_environment(plant)}
    with ProcfileStack(**settings) as stack:
        if plant_sql:
            stack.sql(plant_sql)
        bank = RecordingBank(stack.url_port, DeliveryGenerator(chance, scenario.mix), rate=scenario.rate)
        stage = ScenarioRun(
            stack, bank, Nemesis(random.Random(chance.random())), random.Random(chance.random())
        )
        try:
            bank.open()
            scenario.action(stage)
            stage.quiet()
            stage.broken += check(stack, bank, stage.must_fail)
        except StackFailed as failure:
            stage.broken.append(str(failure))
        except Exception:  # noqa: BLE001 one scenario that can't go on must not end the others
            stage.broken.append(f"the scenario itself failed: {traceback.format_exc()}")
        finally:
            bank.close()
        if stage.broken:
            stack.keep_logs(RESULTS / "logs" / f"{plant or scenario.name}-{seed}")
        return _result(scenario, seed, stage, time.monotonic() - begun)


def failpoint_environment(plant: str = "") -> dict[str, str]:
    """The environment in which the processes load faults/failpoints.py."""
    return {"DJANGO_SETTINGS_MODULE": "faults.settings", "FAULTS_SEEDED_BUG": plant}


def _result(scenario: Scenario, seed: int, stage: ScenarioRun, seconds: float) -> Result:
    bank = stage.bank
    return Result(
        scenario.name,
        seed,
        len(bank.log),
        bank.count("ok"),
        bank.count("refused"),
        bank.count("unknown"),
        bank.reads,
        stage.nemesis.strikes,
        stage.nemesis.schedule,
        round(stage.quiet_seconds, 2),
        round(seconds, 1),
        stage.broken,
    )
