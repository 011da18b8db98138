"""Scenarios in which processes and servers die while operators correct payments under load.

At every moment a reader sees both entries of an assignment or a replacement, or neither; in the end each
payment is corrected once.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from random import Random
from typing import Any

from faults.admin_browser import sign_in
from faults.correcting_operator import Operator
from faults.observer import Observer
from faults.scenario_run import ScenarioRun, failpoint_environment
from faults.scenarios import scenario
from tests.harness.bank_client import TBANK_TOKEN, DeliveryMix
from tests.harness.procfile_stack import DATABASE_ERRORS
from tests.harness.wait import wait_until

# Before the first statement of a chunk; between the entries; before the item is marked; before the commit;
# after it, before the next chunk.
STEPS = ["chunk", "reversed", "replaced", "corrected", "item-marked", "chunk-committed"]
WEB_FOLDER = "web-failpoints"
MIX = DeliveryMix(suspense=0.2, conflicts=0.1, hot=0.2)
DONE_MIN = 20  # of corrections: fewer prove nothing
DONE = "SELECT COUNT(*) FROM ingest_operatoractionitem WHERE outcome = 'done'"
STEP_SECONDS_MAX = 120  # until a process reaches a step, on a machine that does much else
TBANK = {"TBANK_BEARER_TOKENS": TBANK_TOKEN}


def corrections(**stack: Any) -> Callable[[Callable[[ScenarioRun], None]], None]:
    """Register a scenario with corrections; failpoints of web and of the workers are armed apart."""
    own_folder = {"FAULTS_FOLDER": f"{{folder}}/{WEB_FOLDER}"}
    environment = {**failpoint_environment(), **TBANK}
    return scenario(MIX, rate=40, environment=environment, environments={"web": own_folder}, **stack)


@corrections()
def corrections_concurrent(run: ScenarioRun) -> None:
    """No fault: two operators assign and replace the same payments at once; each succeeds once."""
    with correcting(run, operators=2) as operators:
        run.inject("two operators", run.observe, 8)
    errors = [error for operator in operators for error in operator.errors]
    run.require(not errors, f"operators saw {errors}")


@corrections()
def corrections_failpoints_in_web(run: ScenarioRun) -> None:
    """Raise and exit in the request at each step of assign and replace."""
    (run.stack.folder / WEB_FOLDER).mkdir()
    with correcting(run):
        fire(run, [(f"{WEB_FOLDER}/{step}", action) for step in STEPS for action in ("raise", "exit")])


@corrections()
def corrections_failpoints_in_worker(run: ScenarioRun) -> None:
    """Raise and exit in a worker at each step of assign and replace."""
    with correcting(run):
        fire(run, [(step, action) for step in STEPS for action in ("raise", "exit")])


@corrections()
def corrections_database_killed(run: ScenarioRun) -> None:
    """A worker is stopped at each step of assign and replace; the database is killed, and it continues."""
    with correcting(run):
        for step in run.rng.sample(STEPS, len(STEPS)):
            stop_at(run, step)
            run.inject("kill -9 mariadb", run.stack.mariadb.kill)
            run.stack.mariadb.start()
            run.stack.resume_stopped()


@corrections()
def corrections_session_killed(run: ScenarioRun) -> None:
    """A worker is stopped at each step of assign and replace; the database ends its session."""
    with correcting(run):
        for step in run.rng.sample(STEPS, len(STEPS)):
            stop_at(run, step)
            with closing(run.stack.session()) as observer:
                run.inject("session killed", run.stack.kill_sessions, observer)
            run.stack.resume_stopped()


@corrections()
def corrections_processes_killed(run: ScenarioRun) -> None:
    """kill -9 of web, workers and their children while operators assign and replace."""
    with correcting(run):
        for _ in run.moments(8, 12):
            program = run.rng.choice([run.stack["web"], *run.stack.workers])
            if run.rng.random() < 0.5 and program.children():
                run.inject(f"kill -9 a child of {program.name}", kill, program.random_child(run.rng))
            else:
                run.inject(f"kill -9 {program.name}", program.kill_group)
                run.stack.start(program.name)


@corrections(embedded=True, workers=1)
def corrections_embedded_killed(run: ScenarioRun) -> None:
    """SQLite: raise and exit in web and worker at each step of assign and replace."""
    (run.stack.folder / WEB_FOLDER).mkdir()
    with correcting(run):
        fire(run, [(step, "exit") for step in STEPS])
        fire(run, [(f"{WEB_FOLDER}/{step}", "exit") for step in STEPS])


@contextmanager
def correcting(run: ScenarioRun, operators: int = 1) -> Iterator[Sequence[Operator]]:
    """Have operators correct payments during the block, and an observer read the books; judge both."""
    # The same choices of the same candidates.
    session_key = sign_in(run.stack)
    people = [Operator(run.stack, Random(0), session_key) for _ in range(operators)]
    with observed(run):
        try:
            for person in people:
                person.open()
            yield people
            wait_for_corrections(run, DONE)
            run.drain()
            for person in people:
                person.finish()
        finally:
            for person in people:
                person.close()


@contextmanager
def observed(run: ScenarioRun) -> Iterator[None]:
    """Have an observer read the books during the block; judge what it saw."""
    run.bank.corrects = True
    observer = Observer(run.stack)
    observer.open()
    try:
        yield
    finally:
        observer.close()
    run.violations += sorted(observer.violations)
    run.require(observer.reads > 20, f"only {observer.reads} observations")


def wait_for_corrections(run: ScenarioRun, done: str) -> None:
    """Wait until the query `done` counts enough corrections: the faults may be over within seconds."""

    def are_done() -> bool:
        with suppress(*DATABASE_ERRORS):  # it is starting again
            return int(run.stack.sql(done)[0][0]) >= DONE_MIN
        return False

    wait_until(are_done, f"{DONE_MIN} corrections are done", STEP_SECONDS_MAX)


def fire(run: ScenarioRun, points: list[tuple[str, str]]) -> None:
    """Fire each (step, action) once, in a seeded order, one after the other."""
    for step, action in run.rng.sample(points, len(points)):
        run.arm(step, action)
        reached = partial(has_fired_in_a_supervised_process, run, step, action)
        wait_until(reached, f"a process reached {step}", STEP_SECONDS_MAX)


def has_fired_in_a_supervised_process(run: ScenarioRun, step: str, action: str) -> bool:
    """Start what has ended, too: on SQLite a worker is one process, which an exit ends."""
    run.stack.start_ended()
    return run.has_fired(step, action)


def stop_at(run: ScenarioRun, step: str) -> None:
    run.arm(step, "stop")
    wait_until(partial(run.has_fired, step, "stop"), f"a process is stopped at {step}", STEP_SECONDS_MAX)
    run.observe(0.3)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
