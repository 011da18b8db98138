"""Scenarios one after the other, or several at a time, each in a house of its own.

Not in __main__, which a spawned process does not load.
"""

import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence

from faults.scenarios import SCENARIOS
from faults.stage import Result, Scenario, play

Plan = Iterator[tuple[Scenario, int]]  # each with its seed


def one_by_one(plan: Plan) -> Iterator[Result]:
    return (play(scenario, seed) for scenario, seed in plan)


def several_at_a_time(plan: Sequence[tuple[Scenario, int]], jobs: int) -> Iterator[Result]:
    """Those that judge by seconds come last, and each has the machine to itself."""
    beside = [(scenario.name, seed) for scenario, seed in plan if not scenario.alone]
    # Processes, and not forked ones: the thread that starts all servers would not be there after a fork.
    with multiprocessing.get_context("spawn").Pool(jobs, end_by_way_of_every_with) as pool:
        yield from pool.imap_unordered(play_named, beside)
    yield from one_by_one((scenario, seed) for scenario, seed in plan if scenario.alone)


def play_named(told: tuple[str, int]) -> Result:
    """A scenario's function can't be sent to another process; its name can."""
    name, seed = told
    return play(SCENARIOS[name], seed)


def end_by_way_of_every_with() -> None:
    """When told to, so that nothing is left running."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
