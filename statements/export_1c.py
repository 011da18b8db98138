"""Postings of a period as 1CClientBankExchange, in Windows-1251, for programs that read statements.

A payment is a document received on its posting day, a reversal one paid out on it, so that no sum is
negative. What is not in Windows-1251 becomes a question mark. The sums are those of the written documents,
also while payments are posted; so our own reader proves every file (statements/reading.py).
"""

import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime

from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from core.db.pk_by_time import first_pk_at
from ledger import queries
from ledger.inn import is_suspense
from ledger.models import BalanceLog
from ledger.statement import Period
from statements import match_sql
from statements.models import OwnAccount
from statements.reading import BODY_BYTES_MAX, DOCUMENTS_MAX

ENCODING = "cp1251"
WITHOUT_NUMBER = "б/н"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\xa0\u2028\u2029]+")
Fields = dict[str, str]


class ExportTooLarge(Exception):
    """The file would exceed what programs read: choose a shorter period."""


def export(account: OwnAccount, period: Period, inn: str | None = None) -> bytes:
    """Return the file of the period's postings, of one organization or of all.

    The ledger doesn't know to which account a payment came: `account` is named in each document. Raise
    ExportTooLarge.
    """
    opening, entries = _of_organization(inn, period) if inn else _of_all(period)
    found, credited, reversed_sum = [], 0, 0
    for entry in entries[: DOCUMENTS_MAX + 1].iterator():
        credited += max(entry.amount_kopecks, 0)
        reversed_sum += max(-entry.amount_kopecks, 0)
        found.append(_document(account, entry, period))
    days = _days(period)
    balances = {
        **days,
        "РасчСчет": account.number,
        "НачальныйОстаток": _rubles(opening),
        "ВсегоПоступило": _rubles(credited),
        "ВсегоСписано": _rubles(reversed_sum),
        "КонечныйОстаток": _rubles(opening + credited - reversed_sum),
    }
    lines = ["1CClientBankExchange", *_header(account, days, period), "СекцияРасчСчет", *_lines(balances)]
    lines += ["КонецРасчСчет", *(line for document in found for line in document), "КонецФайла", ""]
    body = "\r\n".join(lines).encode(ENCODING, "replace")
    if len(found) > DOCUMENTS_MAX or len(body) > BODY_BYTES_MAX:
        raise ExportTooLarge
    return body


def _of_organization(inn: str, period: Period) -> tuple[int, QuerySet[BalanceLog]]:
    """Return the opening balance in kopecks and the entries."""
    organization = queries.find_organization(inn)
    if organization is None:
        return 0, BalanceLog.objects.none()
    first, last = queries.seq_range(organization, period.since, period.until)
    entries = queries.entries(organization, first, last).select_related("organization")
    return queries.balance_after(organization, first - 1), entries.order_by("seq")


def _of_all(period: Period) -> tuple[int, QuerySet[BalanceLog]]:
    """Return the opening balance in kopecks and the entries, found by primary key."""
    entries, opening = BalanceLog.objects.all(), 0
    if period.since:
        first = first_pk_at(entries, "created_at", period.since - queries.SETTLED_AFTER)
        entries = entries.filter(pk__gte=first, created_at__gte=period.since)
        opening = _opening(first, period.since)
    if period.until:
        last = first_pk_at(BalanceLog.objects.all(), "created_at", period.until + queries.SETTLED_AFTER)
        entries = entries.filter(pk__lt=last, created_at__lt=period.until)
    return opening, entries.select_related("payment__reverses", "organization").order_by("created_at", "pk")


def _opening(first: int, since: datetime) -> int:
    """Return all balances less what was posted since, in one statement, as payments are posted meanwhile."""
    sql = (
        "SELECT (SELECT COALESCE(SUM(balance_kopecks), 0) FROM ledger_organization)"
        " - (SELECT COALESCE(SUM(amount_kopecks), 0) FROM ledger_balancelog"
        " WHERE id >= %(first)s AND created_at >= %(since)s)"
    )
    at = connection.ops.adapt_datetimefield_value(since)
    ((kopecks,),) = match_sql.rows(sql, {"first": first, "since": at})
    return int(kopecks)


def _days(period: Period) -> Fields:
    last = period.last or timezone.now().astimezone(period.zone).date()
    return {"ДатаНачала": _day(period.first or last), "ДатаКонца": _day(last)}


def _header(account: OwnAccount, days: Fields, period: Period) -> Iterable[str]:
    now = timezone.now().astimezone(period.zone)
    return _lines(
        {
            "ВерсияФормата": "1.03",
            "Кодировка": "Windows",
            "Отправитель": "Prihod",
            "ДатаСоздания": _day(now.date()),
            "ВремяСоздания": f"{now:%H:%M:%S}",
            **days,
            "РасчСчет": account.number,
        }
    )


def _document(account: OwnAccount, entry: BalanceLog, period: Period) -> list[str]:
    payment = entry.payment
    inn = "" if is_suspense(entry.organization.inn) else entry.organization.inn
    posted = _day(_local(entry.created_at, period))
    is_reversal = entry.amount_kopecks < 0
    terms = {
        "Номер": _printable(payment.document_number) or WITHOUT_NUMBER,
        "Дата": _day(_local(payment.document_date, period)),
        "Сумма": _rubles(abs(entry.amount_kopecks)),
    }
    if is_reversal:
        sides = {"ПлательщикСчет": account.number, "ДатаСписано": posted, "ПолучательИНН": inn}
    else:
        sides = {"ПлательщикИНН": inn, "ПолучательСчет": account.number, "ДатаПоступило": posted}
    purpose = f"Сторно операции {payment.reverses.operation_id}" if payment.reverses else "Операция"
    fields = terms | sides | {"НазначениеПлатежа": f"{purpose} {payment.operation_id}".strip()}
    kind = "Мемориальный ордер" if is_reversal else "Платежное поручение"
    return [f"СекцияДокумент={kind}", *_lines(fields), "КонецДокумента"]


def _lines(fields: Fields) -> Iterator[str]:
    return (f"{key}={value}" for key, value in fields.items())


def _printable(text: str) -> str:
    return _CONTROL.sub(" ", text).strip()


def _local(at: datetime, period: Period) -> date:
    return at.astimezone(period.zone).date()


def _day(day: date) -> str:
    return f"{day:%d.%m.}{day.year:04}"


def _rubles(kopecks: int) -> str:
    sign = "-" if kopecks < 0 else ""
    return f"{sign}{abs(kopecks) // 100}.{abs(kopecks) % 100:02}"
