"""Read a bank's statement in the format 1CClientBankExchange: a pure function from bytes to a verdict.

Reading is total, every input has a verdict; linear in the bytes; and bounded by the limits below.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from statements import keys
from statements.blocks import Line, Splitter, lines_of
from statements.decoding import Decoded, decode
from statements.document_terms import Terms, read_terms
from statements.documents import Document, place
from statements.field_values import parse_date, parse_time
from statements.findings import Finding, find_warnings
from statements.proof import AccountProof, Section, prove, read_section

BODY_BYTES_MAX = 16 * 1024 * 1024
DOCUMENTS_MAX = 50_000  # and as many balance sections, and as many accounts
LINE_BYTES_MAX = 64 * 1024

Verdict = Literal["ok", "unproven", "partial", "refused"]


class _Refused(Exception):
    """The file is not taken at all; `finding` says why."""

    def __init__(self, code: str, line: int | None, reason: str) -> None:
        super().__init__(reason)
        self.finding = Finding(code, line, reason)


@dataclass(frozen=True, slots=True)
class Header:
    """What the first lines say. `created` is ISO 8601, only a date if the header has no time."""

    declared_encoding: str | None = None
    format_version: str | None = None
    sender: str | None = None
    created: str | None = None
    created_on: date | None = None
    first_day: date | None = None
    last_day: date | None = None
    accounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StatementFile:
    """A file as read. `text` is decoded; a document is text[start:end] of its terms.

    `errors` are of the file: with one, the verdict is refused and nothing may be taken from it.
    """

    encoding: str | None
    header: Header = field(default_factory=Header)
    accounts: tuple[AccountProof, ...] = ()
    documents: tuple[Document, ...] = ()
    errors: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()
    text: str = field(default="", repr=False)

    @property
    def verdict(self) -> Verdict:
        """Return the first that applies: refused, partial, unproven, ok."""
        if self.errors:
            return "refused"
        if any(document.errors for document in self.documents):
            return "partial"
        return "ok" if _is_proven(self.accounts) else "unproven"


def read(body: bytes) -> StatementFile:
    """Return what `body` says and whether its sums prove it. Never raises."""
    try:
        with _paused_garbage_collection():
            return _read(body)
    except _Refused as exc:
        return StatementFile(None, errors=(exc.finding,))


@contextmanager
def _paused_garbage_collection() -> Iterator[None]:
    """Spare a fifth of the time: the collector would go through all documents again and again, to no end.

    They have no cycles.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read(body: bytes) -> StatementFile:
    if len(body) > BODY_BYTES_MAX:
        raise _Refused("too_large", None, f"the file has more than {BODY_BYTES_MAX} bytes")
    decoded = decode(body)
    splitter = Splitter()
    sections, terms = _read_blocks(splitter, _content(decoded))
    owners = dict.fromkeys([*splitter.accounts, *(section.account for section in sections)])
    documents = tuple(place(terms, owners))
    accounts = tuple(prove(owners, sections, documents))
    header = _read_header(splitter)
    warnings = find_warnings(
        decoded, splitter, (header.first_day, header.last_day), header.created_on, accounts, documents
    )
    end_warnings, errors = _judge_end(splitter, is_complete=_is_complete(header, accounts))
    return StatementFile(
        *(decoded.encoding, header, accounts, documents, errors, (*warnings, *end_warnings), decoded.text)
    )


def _content(decoded: Decoded) -> Iterator[Line]:
    """Yield the lines after the first. Raise _Refused if that is not the format's, or at a line too long."""
    lines = lines_of(decoded.text)
    first = next(lines, None)
    if first is None:
        raise _Refused("empty", None, "the file is empty")
    if first.content.casefold() != keys.FIRST_LINE.casefold():
        raise _Refused("not_1c", first.number, f"the first line is not {keys.FIRST_LINE}")
    for line in lines:
        # No encoding in use has more than four bytes per character.
        if line.end - line.start > LINE_BYTES_MAX // 4 and _is_too_long(decoded, line):
            raise _Refused("line_too_long", line.number, f"the line has more than {LINE_BYTES_MAX} bytes")
        yield line


def _is_too_long(decoded: Decoded, line: Line) -> bool:
    """Return whether a line without its end has too many bytes."""
    content = decoded.text[line.start : line.end].rstrip("\r\n")
    return len(content.encode(decoded.encoding, "replace")) > LINE_BYTES_MAX


def _read_blocks(splitter: Splitter, lines: Iterator[Line]) -> tuple[list[Section], list[Terms]]:
    """Return the file's balance sections and documents. Raise _Refused if there are too many of anything."""
    sections: list[Section] = []
    terms: list[Terms] = []
    for block in splitter.split(lines):
        if block.kind == keys.DOCUMENT:
            terms.append(read_terms(block))
        elif section := read_section(block, _only_account(splitter)):
            sections.append(section)
        if max(len(terms), len(sections), len(splitter.accounts)) > DOCUMENTS_MAX:
            raise _Refused(
                "too_many_documents", block.line, f"more than {DOCUMENTS_MAX} documents or accounts"
            )
    return sections, terms


def _only_account(splitter: Splitter) -> str | None:
    return next(iter(splitter.accounts)) if len(splitter.accounts) == 1 else None


def _read_header(splitter: Splitter) -> Header:
    fields = splitter.header.fields
    created_on = parse_date(fields.get(keys.CREATED_DATE, ""))
    created_at = parse_time(fields.get(keys.CREATED_TIME, ""))
    created = f"{created_on}T{created_at}" if created_at else str(created_on)
    return Header(
        declared_encoding=fields.get(keys.ENCODING) or None,
        format_version=fields.get(keys.VERSION) or None,
        sender=fields.get(keys.SENDER) or None,
        created=created if created_on else None,
        created_on=created_on,
        first_day=parse_date(fields.get(keys.FIRST_DAY, "")),
        last_day=parse_date(fields.get(keys.LAST_DAY, "")),
        accounts=tuple(splitter.accounts),
    )


def _judge_end(splitter: Splitter, *, is_complete: bool) -> tuple[list[Finding], tuple[Finding, ...]]:
    """Return (warnings, errors) about the end, which only a file that its sums prove may lack."""
    if splitter.stray_line is not None:
        reason = f"there is content after {keys.FILE_END}"
        return [], (Finding("content_after_end", splitter.stray_line, reason),)
    if splitter.end_line is not None:
        return [], ()
    if is_complete:
        reason = f"{keys.FILE_END} is missing; the sums prove that all documents are there"
        return [Finding("end_missing", splitter.last_line, reason)], ()
    reason = f"{keys.FILE_END} is missing, and the sums don't prove that all documents are there"
    return [], (Finding("truncated", splitter.last_line, reason),)


def _is_complete(header: Header, accounts: tuple[AccountProof, ...]) -> bool:
    """Return whether the sums prove every account up to the header's last day: a day cut off has no sums."""
    last_day = header.last_day
    return _is_proven(accounts) and all(
        last_day is None or (section_end is not None and section_end >= last_day)
        for section_end in (account.sections[-1].last_day for account in accounts)
    )


def _is_proven(accounts: tuple[AccountProof, ...]) -> bool:
    return bool(accounts) and all(account.proof == "holds" for account in accounts)
