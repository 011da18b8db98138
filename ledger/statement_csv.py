"""A statement as CSV, for programs such as 1C.

Separated by semicolons, decimal comma, days as dd.mm.yyyy, lines end with CRLF. Excel reads UTF-8 only with a
byte order mark; 1C and older programs want Windows-1251.

A CSV has no types: Excel takes the document number 000123 for 123 and 1-2 for a day. What would keep it from
that, such as ="000123", programs would have to remove. For Excel there is ledger/statement_xlsx.py.
"""

import codecs
import csv
import re
import unicodedata
from collections.abc import Iterator
from datetime import date, time
from decimal import Decimal
from itertools import chain

from django.utils.translation import gettext as _

from ledger.models import BalanceLog
from ledger.statement import CHUNK_ENTRIES, Statement

UTF_8, CP1251 = "utf-8", "windows-1251"  # as the Content-Type names them
_CODECS = {UTF_8: "utf-8-sig", CP1251: "cp1251"}
# A spreadsheet runs a cell that begins so as a formula (OWASP, "CSV Injection"), wide and small signs, too.
# With which separators it reads the file is its user's setting, so that behind any of them a cell may begin.
_FORMULA = re.compile(r"""(^|[,;:|])(?=[\s"'`]*[-=+@＝＋－＠﹦﹢﹣﹫])""")

Cell = str | int | date | time | Decimal  # a Decimal is a sum in rubles
Row = list[Cell]


class _Line:
    """Where csv.writer writes, one row at a time."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text = text


def csv_chunks(statement: Statement, encoding: str) -> Iterator[bytes]:
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
        writer.writerow(map(cell_text, row))
        chunk.append(line.text)
        if len(chunk) == CHUNK_ENTRIES:
            yield encoder.encode("".join(chunk))
            chunk.clear()
    yield encoder.encode("".join(chunk), final=True)


def rows(statement: Statement) -> Iterator[Row]:
    """Opening balance, lines, and at the end the turnover, summed up from the lines, and closing balance."""
    return chain(header_rows(statement), _lines_and_sums(statement, _("Turnover"), _("Closing balance")))


def header_rows(statement: Statement) -> list[Row]:
    """What stands above the lines; the names of their columns are the last but one."""
    return [
        # In one cell with words: a spreadsheet would make a number of twelve digits, and lose a leading zero.
        [_("Statement of organization, INN {inn}").format(inn=statement.organization.inn)],
        [_("Times in {zone}").format(zone=statement.period.zone)],
        [_("From"), statement.first_day, _("to"), statement.last_day],
        [
            *(_("No."), _("Day"), _("Time"), _("Document number"), _("Document date"), _("Amount, RUB")),
            *(_("Balance after, RUB"), _("Operation id")),
        ],
        _sum(_("Opening balance"), statement.opening),
    ]


def _lines_and_sums(statement: Statement, turnover_name: str, closing_name: str) -> Iterator[Row]:
    turnover = 0
    for line in statement.lines():
        turnover += line.amount_kopecks
        yield _row(line, statement)
    yield _sum(turnover_name, turnover)
    yield _sum(closing_name, statement.closing)


def _sum(name: str, kopecks: int) -> Row:
    """In the column of the amounts."""
    return ["", "", "", name, "", _rubles(kopecks)]


def _row(line: BalanceLog, statement: Statement) -> Row:
    written = line.created_at.astimezone(statement.period.zone)
    return [
        line.seq,
        written.date(),
        written.time().replace(microsecond=0),
        _in_one_line(line.payment.document_number),
        line.payment.document_date.astimezone(statement.period.zone).date(),
        _rubles(line.amount_kopecks),
        _rubles(line.balance_after_kopecks),
        str(line.payment.operation_id),
    ]


def _rubles(kopecks: int) -> Decimal:
    return Decimal(kopecks).scaleb(-2)


def _in_one_line(told: str) -> str:
    """What a stranger told, in one line of composed characters."""
    return "".join(c if c.isprintable() else " " for c in unicodedata.normalize("NFC", told))


def cell_text(cell: Cell) -> str:
    match cell:
        case date():
            return f"{cell:%d.%m.}{cell.year:04}"
        case Decimal():
            return f"{cell:.2f}".replace(".", ",")
        case str():
            return _FORMULA.sub(r"\1'", cell)
        case _:
            return str(cell)
