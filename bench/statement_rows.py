"""Bank statements that agree with the webhooks of bench.generator: files, and rows written by the server.

The account's rows are of 365 days from 2023 on: credits that are matched with webhooks, debits, and
credits without a webhook. Each day has a proven statement. Files are of later days.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

from django.conf import settings
from django.db import connection, transaction

from bench.generator import Columns, Group, inn_of_organization, insert
from statements import day_totals
from statements.models import OwnAccount
from tests.statements.files import OWN, document, section, statement

ORGANIZATIONS = 1_000
DAYS = 365
FIRST_DAY = date(2023, 1, 1)
DEBITS, MISSING = 0.25, 0.001  # for each credit with a webhook
_FIRST_WEBHOOK = datetime(2024, 1, 1, tzinfo=UTC)
_OPENING = 1_000_000_000_00  # covers all debits


def add_account() -> OwnAccount:
    return OwnAccount.objects.create(number=OWN, since=FIRST_DAY)


def file_of(webhooks: Sequence[int], booked_on: date, written_on: date) -> bytes:
    """Return a proven statement of a day with the payments of the webhooks with these numbers."""
    total = _rubles(sum(map(_kopecks, webhooks)))
    balances = section(
        ДатаНачала=f"{booked_on:%d.%m.%Y}",
        ДатаКонца=f"{booked_on:%d.%m.%Y}",
        ВсегоПоступило=total,
        КонечныйОстаток=total,
    )
    documents = (_document(number, booked_on) for number in webhooks)
    return statement(balances, *documents, ДатаСоздания=f"{written_on:%d.%m.%Y}").encode("cp1251")


def _document(number: int, booked_on: date) -> str:
    return document(
        Номер=f"PAY-{number}",
        Дата=f"{_day(number):%d.%m.%Y}",
        ДатаПоступило=f"{booked_on:%d.%m.%Y}",
        Сумма=_rubles(_kopecks(number)),
        ПлательщикИНН=inn_of_organization(1 + (number - 1) % ORGANIZATIONS),
        НазначениеПлатежа=f"Оплата по договору {number}, без НДС",
    )


def _day(number: int) -> date:
    at = _FIRST_WEBHOOK + timedelta(seconds=number)
    return at.astimezone(settings.STATEMENT_TIME_ZONE).date()


def _kopecks(number: int) -> int:
    return (number - 1) // ORGANIZATIONS + 1


def _rubles(kopecks: int) -> str:
    return f"{kopecks // 100}.{kopecks % 100:02}"


def fill_lines(matched: int) -> int:
    """Write rows for the first `matched` webhooks of an account that was just added; return the lines."""
    account = OwnAccount.objects.get().pk
    groups = list(_groups(matched))
    first = 1
    for rows, columns in groups:
        day = _day_sql(first, rows)
        shared = {**_LINE, "account_id": str(account), "date": day, "booked_on": day}
        group = Group(1, rows)
        insert("statements_statementline", {**shared, **columns}, group, 1, rows, before=first - 1)
        first += rows
    with connection.cursor() as cursor:
        cursor.execute(_MATCH_KEYS.format(matched=matched))
        for sql in (_MATCHES, _STATEMENTS, _SIGHTINGS, _BALANCES, _ANALYZE):
            cursor.execute(sql)
    with transaction.atomic():
        day_totals.fill()
    return first - 1


def _groups(matched: int) -> Iterator[tuple[int, Columns]]:
    """Yield the number of rows and the columns of matched credits, debits, and missing webhooks."""
    yield matched, {**_CREDIT, "bucket": "'matched'"}
    yield int(matched * DEBITS), _DEBIT
    yield int(matched * MISSING), {**_CREDIT, "bucket": "'missing_webhook'"}


def _day_sql(first: int, rows: int) -> str:
    return f"DATE('{FIRST_DAY}') + INTERVAL ((number - {first}) * {DAYS} DIV {rows}) DAY"


_KOPECKS = f"(number - 1) DIV {ORGANIZATIONS} + 1"
_LINE: Columns = {
    "id": "number",
    "fingerprint": "MD5(number)",
    "ordinal": "1",
    "kopecks": _KOPECKS,
    "is_reversal": "FALSE",
    "number": "CONCAT('PAY-', number)",
    "number_key": "MD5(CONCAT('pay-', number))",
    "digits_key": "MD5(number)",
    "payer_account": "'40702810110000000011'",
    "payee_account": f"'{OWN}'",
    "payee_inn": "'0011001101'",
    "purpose": "CONCAT('Оплата по договору ', number, ', без НДС')",
    "kind": "'Платежное поручение'",
    "uin": "''",
    "raw": "REPEAT('x', 400)",
    "position": "number",
    "is_withdrawn": "FALSE",
}
_INN = f"7700000001 + (number - 1) MOD {ORGANIZATIONS}"
_CREDIT: Columns = {
    "side": "'in'",
    "credit_kopecks": _KOPECKS,
    "inn": _INN,
    "payer_inn": _INN,
    "not_creditable": "''",
}
_DEBIT: Columns = {
    "side": "'out'",
    "credit_kopecks": "0",
    "payer_inn": "'0011001101'",
    "not_creditable": "'direction_out'",
    "bucket": "'excluded'",
}
_MATCH_KEYS = """
INSERT INTO statements_matchkey (webhook_id, payment_id, notified_inn, inn, kopecks, number_key, digits_key,
    day, state, bucket)
SELECT w.id, p.id, l.inn, l.inn, l.kopecks, l.number_key, l.digits_key, l.date, 'posted', 'matched'
FROM statements_statementline l JOIN ledger_payment p ON p.id = l.id
JOIN ingest_webhook w ON w.operation_id = p.operation_id WHERE l.id <= {matched}"""
_MATCHES = """
INSERT INTO statements_match (line_id, webhook_id, `rank`, live)
SELECT payment_id, webhook_id, 1, TRUE FROM statements_matchkey"""
_STATEMENTS = f"""
INSERT INTO statements_bankstatement (id, sha256, name, body, encoding, verdict, warnings, errors, unreadable,
    created_at, uploaded_at)
SELECT seq, SHA2(seq, 256), CONCAT(seq, '.txt'), REPEAT('x', 4000), 'cp1251', 'ok', '[]', '[]', 0,
    TIMESTAMP('{FIRST_DAY}') + INTERVAL seq DAY, TIMESTAMP('{FIRST_DAY}') + INTERVAL seq DAY
FROM seq_1_to_{DAYS}"""
_STATEMENT = f"1 + DATEDIFF(booked_on, '{FIRST_DAY}')"
_SIGHTINGS = f"""
INSERT INTO statements_linesighting (line_id, statement_id, position)
SELECT id, {_STATEMENT}, id FROM statements_statementline"""
_SIGNED = "SUM(IF(side = 'in', kopecks, -kopecks))"
_CLOSING = f"{_OPENING} + SUM({_SIGNED}) OVER (ORDER BY booked_on)"
_BALANCES = f"""
INSERT INTO statements_statementbalance (statement_id, account_id, first_day, last_day, finished_day, opening,
    credited, debited, closing, proof)
SELECT {_STATEMENT}, account_id, booked_on, booked_on, booked_on, {_CLOSING} - {_SIGNED},
    SUM(IF(side = 'in', kopecks, 0)), SUM(IF(side = 'out', kopecks, 0)), {_CLOSING}, 'holds'
FROM statements_statementline GROUP BY account_id, booked_on"""
_ANALYZE = """
ANALYZE TABLE statements_statementline, statements_matchkey, statements_match, statements_linesighting"""
