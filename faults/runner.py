"""Run scenarios sequentially or in parallel, each on its own stack.

Not in __main__, which a spawned process does not load.
"""

import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence

from faults.all_scenarios import SCENARIOS
from faults.scenario_run import Result, Scenario, run_scenario

Plan = Iterator[tuple[Scenario, int]]  # scenario and seed


def run_sequentially(plan: Plan) -> Iterator[Result]:
    return (run_scenario(scenario, seed) for scenario, seed in plan)


def run_in_parallel(plan: Sequence[tuple[Scenario, int]], jobs: int) -> Iterator[Result]:
    """Run in `jobs` processes; scenarios that judge by seconds run last, one at a time."""
    parallel = [(scenario.name, seed) for scenario, seed in plan if not scenario.exclusive]
    # Spawned, not forked: the thread that starts all servers would not exist after a fork.
    with multiprocessing.get_context("spawn").Pool(jobs, exit_cleanly_on_sigterm) as pool:
        yield from pool.imap_unordered(run_named, parallel)
    yield from run_sequentially((scenario, seed) for scenario, seed in plan if scenario.exclusive)


def run_named(name_and_seed: tuple[str, int]) -> Result:
    """Run a scenario by name: its function can't be pickled."""
    name, seed = name_and_seed
    return run_scenario(SCENARIOS[name], seed)


def exit_cleanly_on_sigterm() -> None:
    """Exit on SIGTERM through every `with`, so that no process is left running."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
