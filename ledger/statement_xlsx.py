"""A statement as an .xlsx workbook: each cell has its type, so a spreadsheet changes none and runs none."""

from collections.abc import Iterator
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

from django.utils.translation import gettext as _
from xlsxwriter import Workbook
from xlsxwriter.format import Format
from xlsxwriter.worksheet import Worksheet

from ledger import statement_csv
from ledger.statement import Statement
from ledger.statement_csv import Cell, Row

CONTENT_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
ENTRIES_MAX = 50_000  # 9 s of CPU and 31 MiB of temporary files, before the first byte is sent
CHUNK_BYTES = 64 * 1024
_YEAR_MIN = 1900  # a workbook has no day before
_EXACT_BELOW = Decimal(10) ** 13  # rubles: its numbers have 15 digits
_WIDTHS = (8, 11, 9, 32, 15, 20, 22, 38)  # of the columns, in characters
_FORMATS = {
    "text": {"num_format": "@"},
    "date": {"num_format": "dd.mm.yyyy"},
    "time": {"num_format": "hh:mm:ss"},
    "sum": {"num_format": "#,##0.00"},
    "names": {"bold": True, "text_wrap": True},
}


def xlsx_chunks(statement: Statement) -> Iterator[bytes]:
    """Return the file in chunks; it is written, to the disk, when the first of them is asked for.

    In the language that is active at this call: once the chunks are asked for, the request is over.
    """
    return _chunks(statement_csv.rows(statement), len(statement_csv.header_rows(statement)), _("Statement"))


def _chunks(rows: Iterator[Row], head_rows: int, title: str) -> Iterator[bytes]:
    with TemporaryDirectory() as folder:
        file = Path(folder, "statement.xlsx")
        # Row by row to the disk, instead of all of them in memory until the end.
        with Workbook(file, {"constant_memory": True, "tmpdir": folder}) as workbook:
            _write(workbook, rows, head_rows, title)
        with file.open("rb") as written:
            while chunk := written.read(CHUNK_BYTES):
                yield chunk


def _write(workbook: Workbook, rows: Iterator[Row], head_rows: int, title: str) -> None:
    formats = {name: workbook.add_format(told) for name, told in _FORMATS.items()}
    sheet = workbook.add_worksheet(title)
    for column, width in enumerate(_WIDTHS):
        sheet.set_column(column, column, width)
    names = head_rows - 2
    sheet.freeze_panes(names + 1, 0)
    sheet.ignore_errors({"number_stored_as_text": "A1:H1048576"})
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            style = formats["names"] if number == names else None
            _write_cell(sheet, (number, column), cell, formats, style)


def _write_cell(
    sheet: Worksheet, place: tuple[int, int], cell: Cell, formats: dict[str, Format], style: Format | None
) -> None:
    """Of what has no exact number in a workbook the text is written, as the CSV has it."""
    match cell:
        case date() if cell.year >= _YEAR_MIN:
            sheet.write_datetime(*place, cell, formats["date"])
        case time():
            sheet.write_datetime(*place, cell, formats["time"])
        case Decimal() if abs(cell) < _EXACT_BELOW:
            sheet.write_number(*place, cell, formats["sum"])
        case int():
            sheet.write_number(*place, cell)
        case "":
            pass
        case str():
            # XlsxWriter takes such a text for its own markup, and writes it as it is.
            ending = " " if cell.startswith("<r>") and cell.endswith("</r>") else ""
            sheet.write_string(*place, cell + ending, style or formats["text"])
        case _:
            sheet.write_string(*place, statement_csv.cell_text(cell), formats["text"])
