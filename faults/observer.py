"""Read the books without pause while operators correct payments: no correction may be seen in part."""

import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import Any

from faults.expected_ledger import DELETED
from tests.harness.procfile_stack import DATABASE_ERRORS, ProcfileStack, execute

PAUSE_SECONDS = 0.03
_SIGNED = "CASE kind WHEN 'reversal' THEN -amount_kopecks ELSE amount_kopecks END"
_VERSIONS = "SELECT COUNT(*) FROM ingest_operationversion WHERE outcome = 'done' AND version"
_DELETED = f"{_VERSIONS} = {DELETED}"
_DONE = (
    f"SELECT ({_VERSIONS} <> {DELETED}) + COUNT(*)"
    " FROM ingest_operatoractionitem i JOIN ingest_operatoraction a ON a.id = i.action_id"
    " WHERE i.outcome = 'done' AND a.kind IN ('assign', 'unassign', 'replace')"
)
BOOKS = (
    "SELECT COALESCE(SUM(balance_kopecks), 0) FROM ledger_organization",
    "SELECT COALESCE(SUM(amount_kopecks), 0) FROM ledger_balancelog",
    f"SELECT COALESCE(SUM({_SIGNED}), 0) FROM ledger_payment",
    f"SELECT COUNT(*) - ({_DELETED}) FROM ledger_payment WHERE reverses_id IS NOT NULL",
    "SELECT COUNT(*) FROM ledger_replacement",
    _DONE,
)


class Observer:
    """Reads all of BOOKS as of one moment: in one statement, and in one transaction of a fixed snapshot."""

    def __init__(self, stack: ProcfileStack) -> None:
        self.violations: set[str] = set()
        self.reads = 0
        self._stack = stack
        self._closing = threading.Event()
        reads = (self._in_one_statement, self._in_one_transaction)
        self._threads = [threading.Thread(target=self._run, args=(read,)) for read in reads]

    def open(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join()

    def _run(self, read: Callable[[Any], Sequence[int]]) -> None:
        while not self._closing.is_set():
            # A killed database ends the session: open the next one.
            with suppress(*DATABASE_ERRORS), closing(self._stack.session()) as session:
                while not self._closing.wait(PAUSE_SECONDS):
                    self.violations.update(inconsistencies(*map(int, read(session))))
                    self.reads += 1
            self._closing.wait(PAUSE_SECONDS)

    def _in_one_statement(self, session: Any) -> Sequence[int]:
        self._begin(session, "READ COMMITTED", "START TRANSACTION")
        (state,) = execute(session, f"SELECT {', '.join(f'({query})' for query in BOOKS)}")
        session.rollback()
        return state

    def _in_one_transaction(self, session: Any) -> Sequence[int]:
        self._begin(session, "REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT")
        state = [execute(session, query)[0][0] for query in BOOKS]
        session.rollback()
        return state

    def _begin(self, session: Any, isolation: str, statement: str) -> None:
        if self._stack.embedded:
            execute(session, "BEGIN")
        else:
            execute(session, f"SET SESSION TRANSACTION ISOLATION LEVEL {isolation}")
            execute(session, statement)


def inconsistencies(
    balances: int, entries: int, payments: int, reversals: int, replacements: int, done: int
) -> list[str]:
    """Return what a reader must never see, while every correction replaces; deletions are not counted."""
    wrong = []
    if not balances == entries == payments:
        wrong.append("observer: balances, log entries and payments less reversals have different sums")
    if reversals != replacements:
        wrong.append("observer: a reversal was seen without its replacement")
    if done != replacements:
        wrong.append(
            "observer: a correction was seen without its operator action's item or its version's outcome,"
            " or the reverse"
        )
    return wrong
