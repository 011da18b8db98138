"""Check the client's history against inbox and ledger, once the faults are over and the backlog is drained.

The checker reads with plain SQL in its own session, so that a bug in the code under test can't hide itself.
Each check yields one sentence per violation.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from faults.database_guards import check_guards
from faults.expected_ledger import Corrections, Ledger, expected_ledger, read_corrections, versions
from tests.harness.bank_client import Attempt, DeliveredTerms, RecordingBank
from tests.harness.procfile_stack import ProcfileStack

MustFail = Callable[[DeliveredTerms], bool]  # which webhooks have to end failed
STATEMENT_SOURCE = "statement"  # of webhooks that were posted from bank statements
Entry = tuple[int, UUID, int, int]  # seq, operation, amount, balance after


@dataclass(frozen=True)
class InboxRow:
    terms: DeliveredTerms
    status: str
    source: str


@dataclass(frozen=True)
class DatabaseState:
    """The database after the drain, read once. Redeliveries are counted by operation."""

    inbox: Mapping[UUID, Sequence[InboxRow]]
    payments: Mapping[UUID, Sequence[DeliveredTerms]]
    entries: Mapping[str, Sequence[Entry]]
    organizations: Mapping[str, tuple[int, int]]  # balance, last seq
    duplicates: Counter[UUID]
    conflicts: Counter[UUID]
    rejected: int
    corrections: Corrections
    merged: Set[UUID]  # webhooks whose payment was posted from a bank statement before


def read(stack: ProcfileStack) -> DatabaseState:
    inbox, payments, entries = defaultdict(list), defaultdict(list), defaultdict(list)
    columns = "operation_id, {inn}, amount_kopecks, document_number"
    for *webhook, status, source in stack.sql(
        f"SELECT {columns.format(inn='payer_inn')}, status, source FROM ingest_webhook"
    ):
        terms = _terms(webhook)
        inbox[terms.operation_id].append(InboxRow(terms, status, source))
    joined = "FROM ledger_payment p JOIN ledger_organization o ON o.id = p.organization_id"
    for row in stack.sql(f"SELECT {columns.format(inn='inn')} {joined}"):
        terms = _terms(row)
        payments[terms.operation_id].append(terms)
    columns = "l.seq, p.operation_id, l.amount_kopecks, l.balance_after_kopecks"
    for inn, seq, operation_id, amount, balance in stack.sql(
        f"SELECT o.inn, {columns} FROM ledger_balancelog l JOIN ledger_payment p ON p.id = l.payment_id"
        " JOIN ledger_organization o ON o.id = l.organization_id ORDER BY o.id, l.seq"
    ):
        entries[inn].append((seq, UUID(str(operation_id)), amount, balance))
    balances = stack.sql("SELECT inn, balance_kopecks, last_seq FROM ledger_organization")
    return DatabaseState(
        inbox,
        payments,
        entries,
        {inn: (balance, last_seq) for inn, balance, last_seq in balances},
        _redeliveries(stack, "ingest_duplicatedelivery"),
        _redeliveries(stack, "ingest_conflictingdelivery"),
        int(stack.sql("SELECT COUNT(*) FROM ingest_rejecteddelivery")[0][0]),
        read_corrections(stack),
        _merged(stack),
    )


def _terms(row: Sequence[Any]) -> DeliveredTerms:
    operation_id, inn, amount, number = row
    return DeliveredTerms(UUID(str(operation_id)), inn, amount, number)


def _merged(stack: ProcfileStack) -> set[UUID]:
    """Return the merged webhooks that name payer and amount of what they are merged into."""
    into_equal = (
        "SELECT w.operation_id FROM ingest_statementwebhook s JOIN ingest_webhook w ON w.id = s.merged_id"
        " JOIN ingest_webhook p ON p.id = s.webhook_id AND p.payer_inn = w.payer_inn"
        " AND p.amount_kopecks = w.amount_kopecks"
    )
    return {UUID(str(operation_id)) for (operation_id,) in stack.sql(into_equal)}


def _redeliveries(stack: ProcfileStack, table: str) -> Counter[UUID]:
    query = f"SELECT operation_id FROM {table} k JOIN ingest_webhook w ON w.id = k.webhook_id"
    return Counter(UUID(str(operation_id)) for (operation_id,) in stack.sql(query))


def check(stack: ProcfileStack, bank: RecordingBank, must_fail: MustFail) -> list[str]:
    """Return every violation as a sentence. `must_fail` decides which webhooks have to end failed."""
    state = read(stack)
    plain = [attempt for attempt in bank.history if attempt.delivery.version is None]
    stored = [attempt for attempt in bank.history if attempt.delivery.version in {None, 1}]
    return [
        *bank.violations,
        *_responses(bank.history),
        *_inbox(stored, state),
        *_recorded_deliveries(plain, state),
        *_final_statuses(state, must_fail),
        *_ledger(state, model(state, must_fail, bank.history)),
        *_check_readers(bank, state),
        *check_guards(stack),
        *_verify_ledger(stack),
    ]


def by_operation(history: Sequence[Attempt]) -> dict[UUID, list[Attempt]]:
    grouped = defaultdict(list)
    for attempt in history:
        grouped[attempt.delivery.terms.operation_id].append(attempt)
    return grouped


def _responses(history: Sequence[Attempt]) -> Iterator[str]:
    """A valid delivery is never refused; an invalid one is never accepted."""
    for attempt in history:
        if attempt.outcome == ("refused" if attempt.delivery.valid else "ok"):
            yield f"{_kind(attempt)} delivery got the response {attempt.response}"


def _kind(attempt: Attempt) -> str:
    return "a valid" if attempt.delivery.valid else "an invalid"


def _inbox(history: Sequence[Attempt], state: DatabaseState) -> Iterator[str]:
    """P1 and P2 at the endpoint: each ok is stored once, each unknown at most once, each refused never."""
    sent = by_operation(history)
    from_banks = {key for key, rows in state.inbox.items() if rows[0].source != STATEMENT_SOURCE}
    for operation_id in from_banks - sent.keys():
        yield f"inbox: operation {operation_id} was never sent"
    for operation_id, attempts in sent.items():
        rows = state.inbox.get(operation_id, ())
        answered = [attempt for attempt in attempts if attempt.outcome == "ok"]
        if answered and not rows:
            yield f"inbox: acknowledged operation {operation_id} is lost"
        if len(rows) > 1:
            yield f"inbox: operation {operation_id} is stored {len(rows)} times"
        if rows and rows[0].terms not in {
            attempt.delivery.terms for attempt in attempts if attempt.delivery.valid
        }:
            yield f"inbox: operation {operation_id} is stored with terms that were never sent"
        successes = [attempt for attempt in answered if '"success"' in attempt.response]
        if len(successes) > 1:
            yield f"inbox: operation {operation_id} was acknowledged as new {len(successes)} times"
        if rows and any(attempt.delivery.terms != rows[0].terms for attempt in successes):
            yield f"inbox: operation {operation_id} was acknowledged as new with other terms than are stored"


def _recorded_deliveries(history: Sequence[Attempt], state: DatabaseState) -> Iterator[str]:
    """Each delivery answered "already processed" or 400 is recorded once.

    Conflicts with identical bytes may be recorded only once.
    """
    for operation_id, attempts in by_operation(history).items():
        if rows := state.inbox.get(operation_id):
            same = [attempt for attempt in attempts if attempt.delivery.terms == rows[0].terms]
            other = [attempt for attempt in attempts if attempt.delivery.terms != rows[0].terms]
            yield from _check_count(
                f"duplicates of {operation_id}", same, state.duplicates[operation_id], "already"
            )
            yield from _check_count(
                f"conflicts of {operation_id}",
                other,
                state.conflicts[operation_id],
                "already",
                least=len({attempt.delivery.body for attempt in other if _was_answered(attempt, "already")}),
            )
    invalid = [attempt for attempt in history if not attempt.delivery.valid]
    yield from _check_count("rejected", invalid, state.rejected, "error")


def _was_answered(attempt: Attempt, word: str) -> bool:
    return word in attempt.response and attempt.outcome in ("ok", "refused")


def _check_count(
    what: str, attempts: Sequence[Attempt], found: int, word: str, least: int | None = None
) -> Iterator[str]:
    answered = sum(_was_answered(attempt, word) for attempt in attempts)
    unknown = sum(attempt.outcome in ("unknown", "reconnected") for attempt in attempts)
    if not (answered if least is None else least) <= found <= answered + unknown:
        yield f"recorded deliveries: {what}: {answered} answered, {unknown} unknown, {found} recorded"


def _final_statuses(state: DatabaseState, must_fail: MustFail) -> Iterator[str]:
    """P5: every webhook reaches its final status, and the right one."""
    for operation_id, rows in state.inbox.items():
        for row in rows:
            good = "merged" if operation_id in state.merged else "applied"
            final = "failed" if must_fail(row.terms) else good
            if row.status != final:
                yield f"inbox: operation {operation_id} ended {row.status} instead of {final}"


def model(state: DatabaseState, must_fail: MustFail, history: Sequence[Attempt]) -> Ledger:
    """Return what a single thread without faults would have posted: payments and reversals."""
    stored = {operation: rows[0].terms for operation, rows in state.inbox.items()}
    posted = [each for key, each in stored.items() if key not in state.merged and not must_fail(each)]
    done = {**state.corrections.done, **versions(history)}
    return expected_ledger(posted, replace(state.corrections, done=done))


def _ledger(state: DatabaseState, expected: Ledger) -> Iterator[str]:
    """P2 and P3: what the model posts is posted, once, and each organization's entries add up."""
    yield from expected.violations
    for operation_id, payments in state.payments.items():
        if len(payments) > 1:
            yield f"ledger: operation {operation_id} is posted {len(payments)} times"
        if payments[0] != expected.payments.get(operation_id):
            yield f"ledger: operation {operation_id} is posted with terms that no delivery has"
    for inn in expected.entries.keys() | state.organizations.keys():
        entries, model_entries = state.entries.get(inn, ()), expected.entries.get(inn, {})
        yield from _check_posted(inn, entries, model_entries)
        balance, last_seq = state.organizations.get(inn, (0, 0))
        if (balance, last_seq) != (sum(model_entries.values()), len(model_entries)):
            yield f"ledger: {inn} has {balance} kopecks in {last_seq} entries, unlike the model"
        yield from _check_entries(inn, entries)


def _check_posted(inn: str, entries: Sequence[Entry], expected: Mapping[UUID, int]) -> Iterator[str]:
    posted = Counter(dict.fromkeys(expected, 0))
    posted.update(operation_id for _, operation_id, _, _ in entries)
    for operation_id, times in posted.items():
        if times != (operation_id in expected):
            yield f"ledger: {inn} has operation {operation_id} {times} times"
    for _, operation_id, amount, _ in entries:
        if amount != expected.get(operation_id, amount):
            yield f"ledger: {inn} has operation {operation_id} with the amount {amount}"


def _check_entries(inn: str, entries: Sequence[Entry]) -> Iterator[str]:
    balance = 0
    for number, (seq, _, amount, balance_after) in enumerate(entries, start=1):
        balance += amount
        if (seq, balance_after) != (number, balance):
            yield f"ledger: {inn}: entry {number} has seq {seq} and balance {balance_after}, not {balance}"
            return
        if balance < 0:
            yield f"ledger: {inn}: the balance after entry {number} is negative: {balance}"
            return


def _check_readers(bank: RecordingBank, state: DatabaseState) -> Iterator[str]:
    """P3 at every moment: everything a reader has seen is still there, unchanged."""
    for inn, reading in bank.readings.items():
        entries = {seq: rest for seq, *rest in state.entries.get(inn, ())}
        for seq, (operation_id, amount, balance) in reading.entries.items():
            row = [UUID(operation_id), *(Decimal(rubles).scaleb(2) for rubles in (amount, balance))]
            if entries.get(seq) != row:
                yield f"readers: {inn}: entry {seq} was read, and is not in the ledger like this"


def _verify_ledger(stack: ProcfileStack) -> Iterator[str]:
    verified = stack.manage("verify_ledger")
    if verified.returncode:
        yield f"verify_ledger: {(verified.stdout + verified.stderr).strip()}"
