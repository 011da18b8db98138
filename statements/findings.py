"""Warnings about a statement: what is odd in a file and refuses nothing."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import islice

from statements import decoding, keys
from statements.blocks import Splitter
from statements.decoding import Decoded
from statements.documents import Document
from statements.proof import AccountProof, Section, gaps

WARNINGS_PER_CODE_MAX = 100

Period = tuple[date | None, date | None]


@dataclass(frozen=True, slots=True)
class Finding:
    """A warning or an error of a file: a stable code, the line from 1 if it has one, and the reason."""

    code: str
    line: int | None
    reason: str


def find_warnings(
    decoded: Decoded,
    splitter: Splitter,
    header: Period,
    created_on: date | None,
    accounts: Iterable[AccountProof],
    documents: Iterable[Document],
) -> tuple[Finding, ...]:
    """Return the warnings, at most WARNINGS_PER_CODE_MAX of a code."""
    sections = [section for account in accounts for section in account.sections]
    first_day, last_day = _period(header, sections)
    rules = (
        _encoding(decoded, splitter),
        _undecodable(decoded),
        _key_case(splitter),
        _unknown_sections(splitter),
        _backwards(header, splitter, sections),
        _outside(first_day, last_day, documents),
        _gaps(accounts),
        _not_over(last_day, created_on),
        _no_balances(sections),
    )
    return tuple(finding for rule in rules for finding in islice(rule, WARNINGS_PER_CODE_MAX))


def _encoding(decoded: Decoded, splitter: Splitter) -> Iterator[Finding]:
    declared = splitter.header.fields.get(keys.ENCODING)
    if declared and not decoding.declares(declared, decoded.encoding):
        reason = f"the file says {keys.ENCODING}={declared} and is {decoded.encoding}"
        yield Finding("encoding_differs", splitter.header.lines[keys.ENCODING], reason)


def _undecodable(decoded: Decoded) -> Iterator[Finding]:
    if decoded.is_lossy:
        before = decoded.text[: decoded.text.index("\N{REPLACEMENT CHARACTER}")]
        line = before.count("\n") + before.count("\r") - before.count("\r\n") + 1
        yield Finding("undecodable_bytes", line, f"some bytes are not {decoded.encoding}")


def _key_case(splitter: Splitter) -> Iterator[Finding]:
    if splitter.odd_case_line is not None:
        yield Finding("key_case", splitter.odd_case_line, "a key is in other letters than in the format")


def _unknown_sections(splitter: Splitter) -> Iterator[Finding]:
    for line, name in splitter.unknown_sections:
        yield Finding("unknown_section", line, f"{name} is not in the format; it is skipped")


def _backwards(header: Period, splitter: Splitter, sections: Iterable[Section]) -> Iterator[Finding]:
    if _is_backwards(header):
        yield _backwards_at(splitter.header.lines[keys.FIRST_DAY], *header)
    for section in sections:
        if _is_backwards((section.first_day, section.last_day)):
            yield _backwards_at(section.line, section.first_day, section.last_day)


def _backwards_at(line: int, first_day: date | None, last_day: date | None) -> Finding:
    return Finding(
        "period_backwards", line, f"{keys.FIRST_DAY} {first_day} is after {keys.LAST_DAY} {last_day}"
    )


def _outside(
    first_day: date | None, last_day: date | None, documents: Iterable[Document]
) -> Iterator[Finding]:
    for document in documents:
        booked_on = document.booked_on
        if booked_on and ((first_day and booked_on < first_day) or (last_day and booked_on > last_day)):
            reason = f"document {document.index} was booked on {booked_on}, outside the period"
            yield Finding("outside_period", document.terms.line, reason)


def _gaps(accounts: Iterable[AccountProof]) -> Iterator[Finding]:
    for account in accounts:
        for first_day, last_day in gaps(account):
            reason = f"no section of {account.account} covers {first_day} to {last_day}"
            yield Finding("period_gap", None, reason)


def _not_over(last_day: date | None, created_on: date | None) -> Iterator[Finding]:
    if last_day and created_on and created_on <= last_day:
        reason = f"{last_day} was not over when the bank wrote the file: more documents of that day may come"
        yield Finding("day_not_over", None, reason)


def _no_balances(sections: list[Section]) -> Iterator[Finding]:
    if not sections:
        yield Finding(
            "no_balances", None, "there is no balance section: nothing proves that all documents are there"
        )


def _is_backwards(period: Period) -> bool:
    first_day, last_day = period
    return first_day is not None and last_day is not None and first_day > last_day


def _period(header: Period, sections: Iterable[Section]) -> Period:
    """Return the period of the sections, or else of the header; one that runs backwards is none."""
    periods = [(section.first_day, section.last_day) for section in sections]
    forward = [period for period in periods if not _is_backwards(period)]
    first_days = [first_day for first_day, _ in forward if first_day]
    last_days = [last_day for _, last_day in forward if last_day]
    if first_days and last_days:
        return min(first_days), max(last_days)
    return (None, None) if _is_backwards(header) else header
