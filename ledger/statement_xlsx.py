"""A statement as an .xlsx workbook: cells are typed, so a spreadsheet neither converts nor runs them."""

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
_YEAR_MIN = 1900  # the format has no earlier date
_EXACT_BELOW = Decimal(10) ** 13  # rubles: numbers of the format have 15 digits
_WIDTHS = (8, 11, 9, 32, 15, 20, 22, 38, 38)  # of the columns, in characters
_FORMATS = {
    "text": {"num_format": "@"},
    "date": {"num_format": "dd.mm.yyyy"},
    "time": {"num_format": "hh:mm:ss"},
    "amount": {"num_format": "#,##0.00"},
    "column_names": {"bold": True, "text_wrap": True},
}


def xlsx_chunks(statement: Statement) -> Iterator[bytes]:
    """Return the file in chunks, in the language active at this call.

    The file is written to a temporary folder when the first chunk is read; by then the request is over and
    its language no longer active.
    """
    rows, header_rows = statement_csv.rows(statement), statement_csv.header_rows(statement)
    return _chunks(rows, len(header_rows), _("Statement"))


def _chunks(rows: Iterator[Row], header_count: int, title: str) -> Iterator[bytes]:
    with TemporaryDirectory() as folder:
        file = Path(folder, "statement.xlsx")
        # Rows are written to the disk one by one, instead of staying in memory until the end.
        with Workbook(file, {"constant_memory": True, "tmpdir": folder}) as workbook:
            _write(workbook, rows, header_count, title)
        with file.open("rb") as written:
            while chunk := written.read(CHUNK_BYTES):
                yield chunk


def _write(workbook: Workbook, rows: Iterator[Row], header_count: int, title: str) -> None:
    formats = {name: workbook.add_format(properties) for name, properties in _FORMATS.items()}
    sheet = workbook.add_worksheet(title)
    for column, width in enumerate(_WIDTHS):
        sheet.set_column(column, column, width)
    column_names = header_count - 2
    sheet.freeze_panes(column_names + 1, 0)
    sheet.ignore_errors({"number_stored_as_text": "A1:I1048576"})
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            style = formats["column_names"] if number == column_names else None
            _write_cell(sheet, (number, column), cell, formats, style)


def _write_cell(
    sheet: Worksheet, place: tuple[int, int], cell: Cell, formats: dict[str, Format], style: Format | None
) -> None:
    """Write a typed cell, or text as in the CSV where the format has no exact number."""
    match cell:
        case date() if cell.year >= _YEAR_MIN:
            sheet.write_datetime(*place, cell, formats["date"])
        case time():
            sheet.write_datetime(*place, cell, formats["time"])
        case Decimal() if abs(cell) < _EXACT_BELOW:
            sheet.write_number(*place, cell, formats["amount"])
        case int():
            sheet.write_number(*place, cell)
        case "":
            pass
        case str():
            # XlsxWriter takes such a text for its own markup and would write it unescaped.
            ending = " " if cell.startswith("<r>") and cell.endswith("</r>") else ""
            sheet.write_string(*place, cell + ending, style or formats["text"])
        case _:
            sheet.write_string(*place, statement_csv.cell_text(cell), formats["text"])
