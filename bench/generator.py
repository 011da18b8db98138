"""Books and backlogs by the million, written by the server itself out of its sequences (MariaDB has them).

All is made up by arithmetic: line n of an organization credits n kopecks, so n (n + 1) / 2 is the balance
after it, and the books are right without anything being read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from django.db import connection, transaction
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

ROWS_PER_STATEMENT = 50_000
PATIENCE_SECONDS = 900  # for one statement, or the commit of a table, on a machine that is busy
BEFORE_FIRST_INN = 7_700_000_000

Columns = Mapping[str, str]  # name → SQL for its value
Advance = Callable[[int], None]  # called with a number of rows that were written


@dataclass(frozen=True)
class Group:
    """So many organizations with so many log lines each, posted to in turn."""

    organizations: int
    lines: int

    @property
    def rows(self) -> int:
        return self.organizations * self.lines


_WHEN = "TIMESTAMP('2024-01-01') + INTERVAL number SECOND"
_INN = f"{BEFORE_FIRST_INN} + organization"
_TOLD: Columns = {
    "operation_id": "MD5(number)",
    "amount_kopecks": "line",
    "document_number": "CONCAT('PAY-', number)",
    "document_date": _WHEN,
}
_PAYMENT: Columns = {**_TOLD, "id": "number", "organization_id": "organization", "created_at": _WHEN}
_LINE: Columns = {
    "id": "number",
    "organization_id": "organization",
    "seq": "line",
    "payment_id": "number",
    "amount_kopecks": "line",
    "balance_after_kopecks": "line * (line + 1) DIV 2",
    "created_at": _WHEN,
}
# What the columns say, so that verify_ledger finds the same in it.
_BODY_OF = f"""CONCAT('{{{{"operation_id": "', {{operation_id}}, '", "amount": ', ROUND(line / 100, 2),
    ', "payer_inn": "', {_INN}, '", "document_number": "PAY-', number, '", "document_date": "',
    DATE_FORMAT({_WHEN}, '%Y-%m-%dT%H:%i:%sZ'), '"}}}}')"""
_WEBHOOK: Columns = {
    **_TOLD,
    "payer_inn": _INN,
    "source": "'bank'",
    "body": _BODY_OF.format(operation_id="MD5(number)"),
    "received_at": _WHEN,
    "status": "'applied'",
    "applied_at": _WHEN,
    "attempts": "0",
    "last_error": "''",
    "error_fingerprint": "''",
}
_QUEUED: Columns = {
    **_WEBHOOK,
    # An own one each time, at a random place in the index as a bank's are; read again for the body.
    "operation_id": "@operation := MD5(UUID())",
    "body": _BODY_OF.format(operation_id="@operation"),
    "received_at": "UTC_TIMESTAMP(6)",
    "status": "'received'",
    "applied_at": "NULL",
}
_FAILED: Columns = {
    **_QUEUED,
    "status": "'failed'",
    "attempts": "5",
    "last_error": "'ValueError: nobody knows'",
    "error_fingerprint": "'ValueError: nobody knows'",
}
_RESULT: Columns = {
    "task_id": "CONCAT('webhook-', number, '-', UUID())",
    "task_name": "'worker.tasks.retry_one'",
    "status": "IF(number MOD 2, 'FAILURE', 'SUCCESS')",
    "content_type": "'application/json'",
    "content_encoding": "'utf-8'",
    "result": "'null'",
    "traceback": "'ValueError: nobody knows'",
    "date_created": _WHEN,
    "date_done": _WHEN,
}
_DELIVERY: Columns = {"received_at": _WHEN, "source": "'bank'"}
_BODY: Columns = {"body": "'{}'"}
_KEPT: Mapping[str, Columns] = {
    "ingest_rejecteddelivery": {**_DELIVERY, **_BODY, "reason": "'amount: must be a number'"},
    "ingest_duplicatedelivery": {**_DELIVERY, "webhook_id": "number"},
    "ingest_conflictingdelivery": {
        **_DELIVERY,
        **_BODY,
        "webhook_id": "number",
        "difference": "'amount_kopecks'",
    },
}


def inn_of_organization(organization: int) -> str:
    """The INN of the organization with this number, which counts from 1."""
    return str(BEFORE_FIRST_INN + organization)


def fill_ledger(groups: Sequence[Group]) -> None:
    """Fill the empty tables: organizations numbered through all groups, their payments, their lines, and an
    applied webhook for each. A bar tells how far it is, at a terminal."""
    tables = {"ledger_payment": _PAYMENT, "ledger_balancelog": _LINE, "ingest_webhook": _WEBHOOK}
    _open(groups)
    connection.close()  # the server would do so after a minute
    total = len(tables) * sum(group.rows for group in groups)
    with (
        _bar("log lines, payments and webhooks", total) as advance,
        ThreadPoolExecutor(len(tables)) as sessions,  # the server has more than one core for them
    ):
        write = partial(_write_table, groups, advance)
        list(sessions.map(write, tables.keys(), tables.values()))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE ledger_organization, ledger_payment, ledger_balancelog, ingest_webhook")


def enqueue(webhooks: int, *, organizations: int, first: int = 1) -> None:
    """Put new webhooks into the common queue, for organizations number `first` and following, in turn."""
    _write("ingest_webhook", _QUEUED, Group(organizations, -(-webhooks // organizations)), first, webhooks)


def write_failures(rows: int) -> None:
    """Failed webhooks, results of attempts and kept deliveries, so many of each, for the admins' lists."""
    everything = {
        "ingest_webhook": _FAILED,
        "django_celery_results_taskresult": _RESULT,
        **_KEPT,
    }
    for table, columns in everything.items():
        _write(table, columns, Group(1, rows), 1, rows)


def _open(groups: Sequence[Group]) -> None:
    first = 1
    for group in groups:
        organizations: Columns = {
            "id": "organization",
            "inn": _INN,
            "balance_kopecks": f"{group.lines} * ({group.lines} + 1) DIV 2",
            "last_seq": str(group.lines),
            "opened_at": _WHEN,
        }
        _write("ledger_organization", organizations, group, first, group.organizations)
        first += group.organizations


def _write_table(groups: Sequence[Group], advance: Advance, table: str, columns: Columns) -> None:
    """In a thread, and so in a session, of its own."""
    server = connection.settings_dict
    options = {**server["OPTIONS"], "read_timeout": PATIENCE_SECONDS}
    connection.settings_dict = {**server, "OPTIONS": options}
    try:
        # One transaction: as long as the table was empty when it began, the server sorts the entries of the
        # indexes before it writes them.
        with _unchecked(), transaction.atomic():
            _write_groups(table, columns, groups, advance)
    finally:
        connection.close()


def _write_groups(table: str, columns: Columns, groups: Sequence[Group], advance: Advance) -> None:
    first, before = 1, 0
    for group in groups:
        _write(table, columns, group, first, group.rows, before=before, advance=advance)
        first += group.organizations
        before += group.rows


def _write(  # noqa: PLR0913 each is one thing that differs
    table: str,
    columns: Columns,
    group: Group,
    first: int,
    rows: int,
    *,
    before: int = 0,
    advance: Advance = lambda _: None,
) -> None:
    """Each row knows its `number` (from `before` + 1), its `organization` (from `first`) and its `line`."""
    names, values = ", ".join(columns), ", ".join(columns.values())
    for start in range(1, rows + 1, ROWS_PER_STATEMENT):
        end = min(start + ROWS_PER_STATEMENT - 1, rows)
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {table} ({names}) SELECT {values} FROM (SELECT seq + {before} AS number, "
                f"{first} + (seq - 1) MOD {group.organizations} AS organization, "
                f"(seq - 1) DIV {group.organizations} + 1 AS line FROM seq_{start}_to_{end}) AS numbers"
            )
        advance(end - start + 1)


@contextmanager
def _unchecked() -> Iterator[None]:
    """The server believes that keys are unique and lead somewhere; verify_ledger is there to doubt it."""
    with connection.cursor() as cursor:
        cursor.execute("SET unique_checks = 0, foreign_key_checks = 0")
        try:
            yield
        finally:
            cursor.execute("SET unique_checks = 1, foreign_key_checks = 1")


@contextmanager
def _bar(what: str, total: int) -> Iterator[Advance]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda rows: progress.advance(task, rows)
