"""A statement as CSV that opens right in Excel with Russian settings and in 1C.

Separated by semicolons, decimal comma, days as dd.mm.yyyy, lines end with CRLF. Excel reads UTF-8 only
with a byte order mark; 1C and older programs want Windows-1251.
"""

import codecs
import csv
import unicodedata
from collections.abc import Iterator
from datetime import date
from itertools import chain

from django.utils.translation import gettext as _

from ledger.models import BalanceLog
from ledger.statement import CHUNK_LINES, Statement

UTF_8, CP1251 = "utf-8", "windows-1251"  # as the Content-Type names them
_CODECS = {UTF_8: "utf-8-sig", CP1251: "cp1251"}
# A spreadsheet runs a cell that begins so as a formula (OWASP, "CSV Injection"); the wide ones in Japan.
FORMULA_BEGINS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")

Row = list[str | int]


class _Line:
    """Where csv.writer writes, one row at a time."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text = text


def encoded(statement: Statement, encoding: str) -> Iterator[bytes]:
    """The file in chunks of bounded size. A character that Windows-1251 lacks becomes a question mark.

    In the language that is active at this call: once the chunks are asked for, the request is over.
    """
    return _chunks(rows(statement), encoding)


def _chunks(rows: Iterator[Row], encoding: str) -> Iterator[bytes]:
    encoder = codecs.getincrementalencoder(_CODECS[encoding])(errors="replace")
    line = _Line()
    writer = csv.writer(line, delimiter=";", lineterminator="\r\n")
    chunk: list[str] = []
    for row in rows:
        writer.writerow(row)
        chunk.append(line.text)
        if len(chunk) == CHUNK_LINES:
            yield encoder.encode("".join(chunk))
            chunk.clear()
    yield encoder.encode("".join(chunk), final=True)


def rows(statement: Statement) -> Iterator[Row]:
    """Opening balance, lines, and at the end the turnover, summed up from the lines, and closing balance."""
    zone = statement.period.zone
    head: list[Row] = [
        # In one cell with words: a spreadsheet would make a number of twelve digits, and lose a leading zero.
        [_("Statement of organization, INN {inn}").format(inn=statement.organization.inn)],
        [_("Times in {zone}").format(zone=zone)],
        [_("From"), day(statement.first_day), _("to"), day(statement.last_day)],
        [
            *(_("No."), _("Day"), _("Time"), _("Document number"), _("Document date"), _("Amount, RUB")),
            *(_("Balance after, RUB"), _("Operation id")),
        ],
        _sum(_("Opening balance"), statement.opening),
    ]
    return chain(head, _lines_and_sums(statement, _("Turnover"), _("Closing balance")))


def _lines_and_sums(statement: Statement, turnover_name: str, closing_name: str) -> Iterator[Row]:
    turnover = 0
    for line in statement.lines():
        turnover += line.amount_kopecks
        yield _row(line, statement)
    yield _sum(turnover_name, turnover)
    yield _sum(closing_name, statement.closing)


def _sum(name: str, kopecks: int) -> Row:
    """In the column of the amounts."""
    return ["", "", "", name, "", rubles(kopecks)]


def _row(line: BalanceLog, statement: Statement) -> Row:
    written = line.created_at.astimezone(statement.period.zone)
    return [
        line.seq,
        day(written),
        f"{written:%H:%M:%S}",
        text(line.payment.document_number),
        day(line.payment.document_date.astimezone(statement.period.zone)),
        rubles(line.amount_kopecks),
        rubles(line.balance_after_kopecks),
        str(line.payment.operation_id),
    ]


def rubles(kopecks: int) -> str:
    """145000,00: nothing that a spreadsheet would take for text."""
    return f"{kopecks // 100},{kopecks % 100:02}"


def day(at: date) -> str:
    return f"{at:%d.%m.}{at.year:04}"


def text(told: str) -> str:
    """What a stranger told, in one line of composed characters, and never a formula."""
    line = "".join(c if c.isprintable() else " " for c in unicodedata.normalize("NFC", told))
    return f"'{line}" if line.lstrip().startswith(FORMULA_BEGINS) else line
