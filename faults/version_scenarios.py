"""A scenario in which workers die while they apply the bank's versions of operations to the ledger."""

import threading
from contextlib import closing
from dataclasses import replace
from functools import partial
from random import Random
from uuid import UUID

from faults.correction_scenarios import corrections, fire, observed, wait_for_corrections
from faults.expected_ledger import DELETED
from faults.scenario_run import ScenarioRun
from tests.harness.bank_client import INNS, BankDelivery, DeliveredTerms, RecordingBank, make_delivery
from tests.harness.wait import wait_until

# Before the first statement; between the entries; before the outcome is recorded; before the commit; after.
STEPS = ["version-begun", "reversed", "replaced", "version-corrected", "version-recorded", "version-applied"]
OPERATIONS_MAX = 10  # that the bank corrects at a time
DELETIONS = 0.2  # share of later versions
PAUSE_SECONDS = 0.05
COUNT = "SELECT COUNT(*) FROM ingest_operationversion WHERE outcome"


@corrections()
def corrections_of_versions_killed(run: ScenarioRun) -> None:
    """Raise and exit in a worker at each step of the correction by a version of an operation."""
    with observed(run):
        with closing(VersionSender(run.bank, run.rng)) as sender:
            sender.open()
            fire(run, [(step, action) for step in STEPS for action in ("raise", "exit")])
            wait_for_corrections(run, f"{COUNT} = 'done'")
        run.drain()
        wait_until(lambda: not run.stack.sql(f"{COUNT} = 'due'")[0][0], "every version is applied", 120)


class VersionSender:
    """Sends operations and their later versions, in order, each until it is acknowledged."""

    def __init__(self, bank: RecordingBank, rng: Random) -> None:
        self._bank, self._rng = bank, rng
        self._newest: list[BankDelivery] = []  # of each operation that is not deleted
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def open(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(PAUSE_SECONDS):
            wait_until(partial(self._is_acknowledged, self._next()), "a version is acknowledged", 60)

    def _is_acknowledged(self, delivery: BankDelivery) -> bool:
        return self._bank.deliver(delivery).outcome == "ok"

    def _next(self) -> BankDelivery:
        if len(self._newest) < OPERATIONS_MAX:
            self._newest.append(self._first())
            return self._newest[-1]
        place = self._rng.randrange(OPERATIONS_MAX)
        earlier = self._newest.pop(place)
        if self._rng.random() < DELETIONS:
            return make_version(earlier.terms, DELETED)
        self._newest.append(self._corrected(earlier))
        return self._newest[-1]

    def _first(self) -> BankDelivery:
        operation_id = UUID(int=self._rng.getrandbits(128), version=4)
        amount = self._rng.randrange(1, 10**8)
        return make_version(DeliveredTerms(operation_id, self._rng.choice(INNS), amount, "VERSIONED"), 1)

    def _corrected(self, earlier: BankDelivery) -> BankDelivery:
        amount = earlier.terms.amount_kopecks + self._rng.randrange(1, 1000)
        terms = replace(earlier.terms, amount_kopecks=amount, inn=self._rng.choice(INNS))
        return make_version(terms, (earlier.version or 0) + 1)


def make_version(terms: DeliveredTerms, number: int) -> BankDelivery:
    return replace(make_delivery(terms, version=number), version=number)
