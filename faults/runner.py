"""Scenarios one after the other, or several at a time, each in a house of its own.

Not in __main__, which a spawned process does not load.
"""

import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence

from faults.scenario_run import Result, Scenario, run_scenario
from faults.scenarios import SCENARIOS

Plan = Iterator[tuple[Scenario, int]]  # each with its seed


def run_sequentially(plan: Plan) -> Iterator[Result]:
    return (run_scenario(scenario, seed) for scenario, seed in plan)


def run_in_parallel(plan: Sequence[tuple[Scenario, int]], jobs: int) -> Iterator[Result]:
    """Those that judge by seconds come last, and each has the machine to itself."""
    beside = [(scenario.name, seed) for scenario, seed in plan if not scenario.alone]
    # Processes, and not forked ones: the thread that starts all servers would not be there after a fork.
    with multiprocessing.get_context("spawn").Pool(jobs, exit_cleanly_on_sigterm) as pool:
        yield from pool.imap_unordered(run_named, beside)
    yield from run_sequentially((scenario, seed) for scenario, seed in plan if scenario.alone)


def run_named(told: tuple[str, int]) -> Result:
    """A scenario's function can't be sent to another process; its name can."""
    name, seed = told
    return run_scenario(SCENARIOS[name], seed)


def exit_cleanly_on_sigterm() -> None:
    """When told to, so that nothing is left running."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
