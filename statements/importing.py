"""Import bank statements. Importing is idempotent: files in any order, repeated or overlapping, add each line
once, and it posts nothing."""

import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from hashlib import sha256
from itertools import islice
from typing import TypeVar

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from core.days import is_plausible
from core.db import transactions
from core.db.insert_rows import insert_rows
from statements import day_totals, reading
from statements.coverage import Period
from statements.lines import FoundLine, LineKey, lines_of, new_line
from statements.models import (
    ERRORS_MAX,
    NAME_CHARS_MAX,
    BankStatement,
    LineSighting,
    OwnAccount,
    StatementBalance,
    StatementLine,
)
from statements.reading import StatementFile
from statements.rejecting import record_rejected
from statements.withdrawal import update_withdrawn

ROWS_AT_ONCE = 1000
NOT_OURS, NO_ACCOUNT = "account_not_ours", "no_account"  # codes of StatementRefused, besides the reader's
TRIES_MAX = 12  # each may wait for the lock of another import for seconds

T = TypeVar("T")
Stored = Mapping[LineKey, tuple[int, int]]  # primary key and position of a line


class StatementRefused(Exception):
    """The file is not taken: a stable `code` of the reason, and the `line` that is wrong, if that is known.

    `account` is the one that is not ours.
    """

    def __init__(self, reason: str, code: str, line: int | None = None, account: str = "") -> None:
        super().__init__(reason)
        self.code, self.line, self.account = code, line, account


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did. `lines` are the file's; of these `new_lines` were unknown."""

    statement: BankStatement
    lines: int = 0
    new_lines: int = 0
    withdrawn_lines: int = 0
    is_repeated: bool = False

    @property
    def known_lines(self) -> int:
        return self.lines - self.new_lines


def import_statement(body: bytes, name: str, user: User | None = None) -> Imported:
    """Store the statement with the lines that are not known yet.

    Bytes that were imported before change nothing. Raise StatementRefused, after recording the file, if
    nothing may be taken from it or if an account is not one of ours.
    """
    digest = sha256(body).hexdigest()
    if known := BankStatement.objects.filter(sha256=digest).first():
        return _repeated(known)
    file = reading.read(body)
    try:
        _check(file)
    except StatementRefused as exc:
        record_rejected(name, body, str(exc), exc.code, exc.line)
        raise
    statement = BankStatement(
        sha256=digest,
        name=name[:NAME_CHARS_MAX],
        body=zlib.compress(body),
        encoding=file.encoding or "",
        verdict=file.verdict,
        warnings=[asdict(finding) for finding in file.warnings],
        errors=list(islice(_errors(file), ERRORS_MAX)),
        unreadable=sum(bool(document.errors) for document in file.documents),
        uploaded_by=user,
    )
    return transactions.run_with_retries(lambda: _store(statement, file), TRIES_MAX)


def add_accounts(file: StatementFile) -> None:
    """Take the file's accounts for ours, reconciled from the first day that the file says of each."""
    for proof in file.accounts:
        of_sections = [section.first_day for section in proof.sections]
        days = of_sections if any(of_sections) else [file.header.first_day]
        since = min((day for day in days if day and is_plausible(day)), default=timezone.localdate())
        OwnAccount.objects.get_or_create(number=proof.account, defaults={"since": since})


def _check(file: StatementFile) -> None:
    for error in file.errors:
        raise StatementRefused(f"{error.code}: {error.reason}", error.code, error.line)
    ours = set(_own_accounts(file).values_list("number", flat=True))
    for account in file.accounts:
        if account.account not in ours:
            raise StatementRefused(
                f"account {account.account} is not one of ours", NOT_OURS, account=account.account
            )
    if not ours:
        raise StatementRefused("the file names no account", NO_ACCOUNT)


def _errors(file: StatementFile) -> Iterator[dict[str, object]]:
    for document in file.documents:
        for error in document.errors:
            yield {"code": error.code, "key": error.key, "line": document.terms.line}


def _own_accounts(file: StatementFile) -> QuerySet[OwnAccount]:
    return OwnAccount.objects.filter(number__in=[account.account for account in file.accounts])


def _repeated(statement: BankStatement) -> Imported:
    return Imported(statement, lines=statement.sightings.count(), is_repeated=True)


def _store(statement: BankStatement, file: StatementFile) -> Imported:
    """Store everything in one transaction, under the locks of the accounts, in primary-key order.

    So imports and matchings of an account run one after the other, and can't deadlock.
    """
    statement.pk = None
    try:
        with transaction.atomic():
            locked = _own_accounts(file).select_for_update().order_by("pk")
            accounts = {account.number: account for account in locked}
            statement.uploaded_at = timezone.now()
            statement.created_at = _created_at(file, statement.uploaded_at)
            statement.save(force_insert=True)
            _store_balances(statement, file, accounts)
            return _store_lines(statement, file, accounts)
    except IntegrityError:
        known = BankStatement.objects.filter(sha256=statement.sha256).first()
        if known is None:
            raise
        return _repeated(known)  # the same bytes were imported at the same time


def _created_at(file: StatementFile, uploaded_at: datetime) -> datetime:
    """Return when the bank wrote the file; the time is of STATEMENT_TIME_ZONE.

    1C's empty date, 01.01.0001, says nothing.
    """
    created = file.header.created and datetime.fromisoformat(file.header.created)
    if not created or not is_plausible(created.date()):
        return uploaded_at
    return created.replace(tzinfo=settings.STATEMENT_TIME_ZONE)


def _store_balances(
    statement: BankStatement, file: StatementFile, accounts: Mapping[str, OwnAccount]
) -> None:
    day_before = statement.created_at.astimezone(settings.STATEMENT_TIME_ZONE).date() - timedelta(days=1)
    StatementBalance.objects.bulk_create(
        StatementBalance(
            statement=statement,
            account=accounts[proof.account],
            first_day=section.first_day,
            last_day=section.last_day,
            finished_day=min(section.last_day, day_before) if section.last_day else None,
            opening=section.opening,
            credited=section.credited,
            debited=section.debited,
            closing=section.closing,
            proof=proof.proof,
        )
        for proof in file.accounts
        for section in proof.sections
    )


def _store_lines(
    statement: BankStatement, file: StatementFile, accounts: Mapping[str, OwnAccount]
) -> Imported:
    lines = list(lines_of(file, accounts))
    stored = _stored_lines(lines)
    new = [line for line in lines if line.key not in stored]
    for part in _parts(new):
        StatementLine.objects.bulk_create(new_line(line, file.text) for line in part)
    day_totals.drop({(line.account.pk, line.booked_on) for line in new})
    _lower_positions(lines, stored)
    _store_sightings(statement, lines, _stored_lines(lines) if new else stored)
    withdrawn = sum(update_withdrawn(account, period) for account, period in _periods(lines, file, accounts))
    return Imported(statement, len(lines), len(new), withdrawn)


def _parts(rows: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(rows)
    while part := list(islice(iterator, ROWS_AT_ONCE)):
        yield part


def _stored_lines(lines: Collection[FoundLine]) -> Stored:
    """Return the stored lines of these accounts and days."""
    days = [line.booked_on for line in lines]
    if not days:
        return {}
    stored = StatementLine.objects.filter(
        account_id__in={line.account.pk for line in lines}, booked_on__range=(min(days), max(days))
    )
    rows = stored.values_list("account_id", "fingerprint", "ordinal", "pk", "position")
    return {(account, fingerprint, ordinal): (pk, at) for account, fingerprint, ordinal, pk, at in rows}


def _lower_positions(lines: Iterable[FoundLine], stored: Stored) -> None:
    """Keep the smallest position of each line, so that it doesn't depend on the order of import."""
    found = ((stored[line.key], line.position) for line in lines if line.key in stored)
    lower = (StatementLine(pk=pk, position=position) for (pk, kept), position in found if position < kept)
    for part in _parts(lower):
        StatementLine.objects.bulk_update(part, ["position"])


def _store_sightings(statement: BankStatement, lines: Iterable[FoundLine], stored: Stored) -> None:
    rows = ((stored[line.key][0], statement.pk, line.document.index) for line in lines)
    insert_rows(LineSighting, ("line_id", "statement_id", "position"), rows)


def _periods(
    lines: Iterable[FoundLine], file: StatementFile, accounts: Mapping[str, OwnAccount]
) -> Iterator[tuple[OwnAccount, Period]]:
    """Yield for each account the days that the file may change: those of its sections and of its lines."""
    days: defaultdict[str, set[date]] = defaultdict(set)
    for line in lines:
        days[line.movement.account].add(line.booked_on)
    for proof in file.accounts:
        of_account = days[proof.account]
        for section in proof.sections:
            of_account |= {day for day in (section.first_day, section.last_day) if day}
        if of_account:
            yield accounts[proof.account], Period(min(of_account), max(of_account))
