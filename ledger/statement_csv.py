"""A statement as CSV, for programs such as 1C.

Semicolons as separators, decimal commas, dates as dd.mm.yyyy, CRLF line ends. Excel reads UTF-8 only with a
byte order mark; 1C and older programs expect Windows-1251.

CSV has no types: Excel reads the document number 000123 as 123 and 1-2 as a date. A guard such as ="000123"
would have to be removed again by other programs. For Excel there is ledger/statement_xlsx.py.
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

UTF_8, CP1251 = "utf-8", "windows-1251"  # IANA names, for the Content-Type
_CODECS = {UTF_8: "utf-8-sig", CP1251: "cp1251"}
# A spreadsheet runs a cell with such a beginning as a formula (OWASP, "CSV Injection"), also with full-width
# and small signs. The separator is a setting of its user, so a cell may begin after any of them.
_FORMULA = re.compile(r"""(^|[,;:|])(?=[\s"'`]*[-=+@＝＋－＠﹦﹢﹣﹫])""")

Cell = str | int | date | time | Decimal  # a Decimal is an amount in rubles
Row = list[Cell]


class _RowBuffer:
    """The file that csv.writer writes to; keeps the last row."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text = text


def csv_chunks(statement: Statement, encoding: str) -> Iterator[bytes]:
    """Return the file in chunks of bounded size, in the language active at this call.

    The chunks are read after the request, when that language is no longer active. A character that is not in
    Windows-1251 becomes a question mark.
    """
    return _encode(rows(statement), encoding)


def _encode(rows: Iterator[Row], encoding: str) -> Iterator[bytes]:
    encoder = codecs.getincrementalencoder(_CODECS[encoding])(errors="replace")
    buffer = _RowBuffer()
    writer = csv.writer(buffer, delimiter=";", lineterminator="\r\n")
    chunk: list[str] = []
    for row in rows:
        writer.writerow(map(cell_text, row))
        chunk.append(buffer.text)
        if len(chunk) == CHUNK_ENTRIES:
            yield encoder.encode("".join(chunk))
            chunk.clear()
    yield encoder.encode("".join(chunk), final=True)


def rows(statement: Statement) -> Iterator[Row]:
    """Return header, opening balance, entries, their totals (summed from the entries) and closing balance."""
    names = _("Credited"), _("Reversed"), _("Turnover"), _("Closing balance")
    return chain(header_rows(statement), _entries_and_totals(statement, names))


def header_rows(statement: Statement) -> list[Row]:
    """Return the rows above the entries; the last but one has the column names."""
    return [
        # Number and words in one cell: a spreadsheet would convert twelve digits, and drop a leading zero.
        [_("Statement of organization, INN {inn}").format(inn=statement.organization.inn)],
        [_("Times in {zone}").format(zone=statement.period.zone)],
        [_("From"), statement.first_day, _("to"), statement.last_day],
        [
            *(_("No."), _("Day"), _("Time"), _("Document number"), _("Document date"), _("Amount, RUB")),
            *(_("Balance after, RUB"), _("Operation id"), _("Reversed operation")),
        ],
        _total(_("Opening balance"), statement.opening),
    ]


def _entries_and_totals(statement: Statement, names: tuple[str, str, str, str]) -> Iterator[Row]:
    credited = reversed_kopecks = 0
    for entry in statement.entries():
        if entry.amount_kopecks > 0:
            credited += entry.amount_kopecks
        else:
            reversed_kopecks += entry.amount_kopecks
        yield _row(entry, statement)
    totals = credited, reversed_kopecks, credited + reversed_kopecks, statement.closing
    # Without a reversal what was credited is the turnover.
    yield from list(map(_total, names, totals))[0 if reversed_kopecks else 2 :]


def _total(name: str, kopecks: int) -> Row:
    """Return a row with the total in the column of the amounts."""
    return ["", "", "", name, "", _rubles(kopecks)]


def _row(entry: BalanceLog, statement: Statement) -> Row:
    posted_at = entry.created_at.astimezone(statement.period.zone)
    reversed_payment = entry.payment.reverses
    return [
        entry.seq,
        posted_at.date(),
        posted_at.time().replace(microsecond=0),
        _printable(entry.payment.document_number),
        entry.payment.document_date.astimezone(statement.period.zone).date(),
        _rubles(entry.amount_kopecks),
        _rubles(entry.balance_after_kopecks),
        str(entry.payment.operation_id),
        str(reversed_payment.operation_id) if reversed_payment else "",
    ]


def _rubles(kopecks: int) -> Decimal:
    return Decimal(kopecks).scaleb(-2)


def _printable(text: str) -> str:
    """Return untrusted text in one line of composed characters (NFC)."""
    return "".join(c if c.isprintable() else " " for c in unicodedata.normalize("NFC", text))


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
