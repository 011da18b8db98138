"""What must hold after quiet, whatever happened before: the client's log against inbox and ledger.

Reads with plain SQL in a session of its own, so that a mistake in the code under test can't hide itself.
Each check yields sentences about what is wrong; none means that it holds.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from tests.harness.bank_client import Attempt, DeliveredTerms, RecordingBank
from tests.harness.procfile_stack import DATABASE_ERRORS, ProcfileStack, execute


@dataclass(frozen=True)
class InboxRow:
    """A row of the inbox."""

    terms: DeliveredTerms
    status: str


@dataclass(frozen=True)
class DatabaseState:
    """The database after quiet, read once. Kept deliveries are counted by the operation they repeat."""

    inbox: Mapping[UUID, Sequence[InboxRow]]
    payments: Mapping[UUID, Sequence[DeliveredTerms]]
    lines: Mapping[str, Sequence[tuple[int, UUID, int, int]]]  # seq, operation, amount, balance after
    organizations: Mapping[str, tuple[int, int]]  # balance, last seq
    repeated: Counter[UUID]
    conflicting: Counter[UUID]
    rejected: int


def read(stack: ProcfileStack) -> DatabaseState:
    inbox, payments, lines = defaultdict(list), defaultdict(list), defaultdict(list)
    columns = "operation_id, {inn}, amount_kopecks, document_number"
    for *webhook, status in stack.sql(
        f"SELECT {columns.format(inn='payer_inn')}, status FROM ingest_webhook"
    ):
        terms = _terms(webhook)
        inbox[terms.operation_id].append(InboxRow(terms, status))
    joined = "FROM ledger_payment p JOIN ledger_organization o ON o.id = p.organization_id"
    for told in stack.sql(f"SELECT {columns.format(inn='inn')} {joined}"):
        terms = _terms(told)
        payments[terms.operation_id].append(terms)
    line = "l.seq, p.operation_id, l.amount_kopecks, l.balance_after_kopecks"
    for inn, seq, operation_id, amount, balance in stack.sql(
        f"SELECT o.inn, {line} FROM ledger_balancelog l JOIN ledger_payment p ON p.id = l.payment_id"
        " JOIN ledger_organization o ON o.id = l.organization_id ORDER BY o.id, l.seq"
    ):
        lines[inn].append((seq, UUID(str(operation_id)), amount, balance))
    balances = stack.sql("SELECT inn, balance_kopecks, last_seq FROM ledger_organization")
    return DatabaseState(
        inbox,
        payments,
        lines,
        {inn: (balance, last_seq) for inn, balance, last_seq in balances},
        _kept(stack, "ingest_duplicatedelivery"),
        _kept(stack, "ingest_conflictingdelivery"),
        int(stack.sql("SELECT COUNT(*) FROM ingest_rejecteddelivery")[0][0]),
    )


def _terms(told: Sequence[Any]) -> DeliveredTerms:
    operation_id, inn, amount, number = told
    return DeliveredTerms(UUID(str(operation_id)), inn, amount, number)


def _kept(stack: ProcfileStack, table: str) -> Counter[UUID]:
    query = f"SELECT operation_id FROM {table} k JOIN ingest_webhook w ON w.id = k.webhook_id"
    return Counter(UUID(str(operation_id)) for (operation_id,) in stack.sql(query))


def check(
    stack: ProcfileStack, bank: RecordingBank, must_fail: Callable[[DeliveredTerms], bool]
) -> list[str]:
    """Every promise that is broken, as sentences. `must_fail` tells which webhooks end failed."""
    state = read(stack)
    return [
        *bank.wrong,
        *_answers(bank.log),
        *_inbox(bank.log, state),
        *_kept_deliveries(bank.log, state),
        *_outcomes(state, must_fail),
        *_ledger(state, model(state, must_fail)),
        *_readings(bank, state),
        *_guards(stack),
        *_verification(stack),
    ]


def by_operation(log: Sequence[Attempt]) -> dict[UUID, list[Attempt]]:
    grouped = defaultdict(list)
    for entry in log:
        grouped[entry.delivery.terms.operation_id].append(entry)
    return grouped


def _answers(log: Sequence[Attempt]) -> Iterator[str]:
    """A valid delivery is never refused, an invalid one never taken."""
    for entry in log:
        if entry.outcome == ("refused" if entry.delivery.valid else "ok"):
            yield f"{_kind(entry)} delivery was answered {entry.answer}"


def _kind(entry: Attempt) -> str:
    return "a valid" if entry.delivery.valid else "an invalid"


def _inbox(log: Sequence[Attempt], state: DatabaseState) -> Iterator[str]:
    """P1 and P2 at the door: every ok is there once, every unknown at most once, every refused never."""
    sent = by_operation(log)
    for operation_id in state.inbox.keys() - sent.keys():
        yield f"inbox: nobody sent operation {operation_id}"
    for operation_id, entries in sent.items():
        rows = state.inbox.get(operation_id, ())
        heard = [entry for entry in entries if entry.outcome == "ok"]
        if heard and not rows:
            yield f"inbox: acknowledged operation {operation_id} is lost"
        if len(rows) > 1:
            yield f"inbox: operation {operation_id} is there {len(rows)} times"
        if rows and rows[0].terms not in {entry.delivery.terms for entry in entries if entry.delivery.valid}:
            yield f"inbox: nobody sent operation {operation_id} under these terms"
        successes = [entry for entry in heard if '"success"' in entry.answer]
        if len(successes) > 1:
            yield f"inbox: operation {operation_id} was called new {len(successes)} times"
        if rows and any(entry.delivery.terms != rows[0].terms for entry in successes):
            yield f"inbox: operation {operation_id} was called new under other terms than are stored"


def _kept_deliveries(log: Sequence[Attempt], state: DatabaseState) -> Iterator[str]:
    """What was answered "already processed" or 400 is kept, each delivery once; of a conflict, the same bytes
    may be kept only once.
    """
    for operation_id, entries in by_operation(log).items():
        if rows := state.inbox.get(operation_id):
            same = [entry for entry in entries if entry.delivery.terms == rows[0].terms]
            other = [entry for entry in entries if entry.delivery.terms != rows[0].terms]
            yield from _counted(f"repeated {operation_id}", same, state.repeated[operation_id], "already")
            yield from _counted(
                f"conflicting {operation_id}",
                other,
                state.conflicting[operation_id],
                "already",
                least=len({entry.delivery.body for entry in other if _heard(entry, "already")}),
            )
    invalid = [entry for entry in log if not entry.delivery.valid]
    yield from _counted("rejected", invalid, state.rejected, "error")


def _heard(entry: Attempt, word: str) -> bool:
    return word in entry.answer and entry.outcome in ("ok", "refused")


def _counted(
    what: str, entries: Sequence[Attempt], found: int, word: str, least: int | None = None
) -> Iterator[str]:
    heard = sum(_heard(entry, word) for entry in entries)
    perhaps = sum(entry.outcome in ("unknown", "reconnected") for entry in entries)
    if not (heard if least is None else least) <= found <= heard + perhaps:
        yield f"kept deliveries: {what}: {heard} heard of, {perhaps} unknown, {found} kept"


def _outcomes(state: DatabaseState, must_fail: Callable[[DeliveredTerms], bool]) -> Iterator[str]:
    """P5: every webhook came to its end, and to the right one."""
    for operation_id, rows in state.inbox.items():
        for row in rows:
            end = "failed" if must_fail(row.terms) else "applied"
            if row.status != end:
                yield f"inbox: operation {operation_id} ended {row.status} instead of {end}"


def model(state: DatabaseState, must_fail: Callable[[DeliveredTerms], bool]) -> dict[str, dict[UUID, int]]:
    """What one thread would have posted, with no fault: kopecks by operation, by organization."""
    ledger: dict[str, dict[UUID, int]] = defaultdict(dict)
    for rows in state.inbox.values():
        terms = rows[0].terms
        if not must_fail(terms):
            ledger[terms.inn][terms.operation_id] = terms.amount_kopecks
    return ledger


def _ledger(state: DatabaseState, expected: Mapping[str, Mapping[UUID, int]]) -> Iterator[str]:
    """P2 and P3: what the model posts is posted, once, and each log adds up."""
    for operation_id, payments in state.payments.items():
        if len(payments) > 1:
            yield f"ledger: operation {operation_id} is posted {len(payments)} times"
        if payments[0] not in [row.terms for row in state.inbox.get(operation_id, ())]:
            yield f"ledger: operation {operation_id} is posted under terms that the inbox doesn't have"
    for inn in expected.keys() | state.organizations.keys():
        lines, model_lines = state.lines.get(inn, ()), expected.get(inn, {})
        posted = Counter(dict.fromkeys(model_lines, 0))
        posted.update(operation_id for _, operation_id, _, _ in lines)
        for operation_id, times in posted.items():
            if times != (operation_id in model_lines):
                yield f"ledger: {inn} has operation {operation_id} {times} times"
        balance, last_seq = state.organizations.get(inn, (0, 0))
        if (balance, last_seq) != (sum(model_lines.values()), len(model_lines)):
            yield f"ledger: {inn} has {balance} kopecks in {last_seq} lines, the model has not"
        yield from _chain(inn, lines)


def _chain(inn: str, lines: Sequence[tuple[int, UUID, int, int]]) -> Iterator[str]:
    balance = 0
    for number, (seq, _, amount, balance_after) in enumerate(lines, start=1):
        balance += amount
        if (seq, balance_after) != (number, balance):
            yield f"ledger: {inn}: line {number} says seq {seq} and balance {balance_after}, not {balance}"
            return


def _readings(bank: RecordingBank, state: DatabaseState) -> Iterator[str]:
    """P3 at every moment: what a reader has seen is still there, and the same."""
    for inn, reading in bank.readings.items():
        lines = {seq: rest for seq, *rest in state.lines.get(inn, ())}
        for seq, (operation_id, amount, balance) in reading.lines.items():
            told = [UUID(operation_id), *(Decimal(rubles).scaleb(2) for rubles in (amount, balance))]
            if lines.get(seq) != told:
                yield f"readers: {inn}: line {seq} was read, and is not in the ledger like that"


def _guards(stack: ProcfileStack) -> Iterator[str]:
    """P2 and P4 at their last line of defence: what the database itself must refuse, tried out."""
    with closing(stack.session()) as session:
        # Else a foreign key could refuse in place of the unique key that is tried.
        execute(session, "PRAGMA foreign_keys = OFF" if stack.embedded else "SET foreign_key_checks = 0")
        for table in ("ledger_payment", "ledger_balancelog"):
            first = f"id = (SELECT id FROM (SELECT MIN(id) AS id FROM {table}) oldest)"
            update = f"UPDATE {table} SET amount_kopecks = amount_kopecks + 1 WHERE {first}"
            yield from _tried(session, f"change a row of {table}", update)
            yield from _tried(session, f"delete a row of {table}", f"DELETE FROM {table} WHERE {first}")
        yield from _copied(session, "ingest_webhook", "operation_id")
        yield from _copied(session, "ledger_payment", "operation_id")
        yield from _copied(session, "ledger_balancelog", "organization_id and seq", payment_id=-1)
        yield from _copied(session, "ledger_balancelog", "payment_id", seq=10**9)


def _copied(session: Any, table: str, key: str, **changed: int) -> Iterator[str]:
    with closing(session.cursor()) as cursor:
        cursor.execute(f"SELECT * FROM {table} LIMIT 1")
        names = [column[0] for column in cursor.description if column[0] != "id"]
    values = [str(changed.get(name, name)) for name in names]
    copy = f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} FROM {table} LIMIT 1"
    yield from _tried(session, f"double {key} of {table}", copy)


def _tried(session: Any, what: str, statement: str) -> Iterator[str]:
    with closing(session.cursor()) as cursor:
        try:
            cursor.execute(statement)
            if cursor.rowcount:  # else the table is empty, and nothing could be tried
                yield f"guards: the database lets somebody {what}"
        except DATABASE_ERRORS:
            pass
        finally:
            session.rollback()


def _verification(stack: ProcfileStack) -> Iterator[str]:
    verified = stack.manage("verify_ledger")
    if verified.returncode:
        yield f"verify_ledger: {(verified.stdout + verified.stderr).strip()}"
