"""Split a statement's text into its header, balance sections and documents, line by line, in one pass."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from itertools import chain
from typing import NamedTuple

from statements import keys
from statements.field_values import BLANKS, without_blanks

_PART_CHARS = 1_000_000
_AROUND = BLANKS + "\r\n\x1a"  # Ctrl-Z, the end of a file in DOS
_SECTION, _SECTION_END = "секция", "конец"
UNKNOWN_SECTIONS_MAX = 100  # those beyond are skipped without being noted
_KEY = re.compile(r"[^\W\d_]\w*")
_HEADER = ""


class Line(NamedTuple):
    """One line: its number from 1, where it begins and ends in the text, and its trimmed content.

    `key` is the part before the first =, or the whole line if there is none; `value` is None then.
    """

    number: int
    start: int
    end: int
    content: str
    key: str
    value: str | None


@dataclass(slots=True)
class Block:
    """The header, a balance section or a document: its fields of known keys, and where it is in the text.

    `conflicts` are the keys that have two different values where only one can be meant.
    `lines` has the line of each key of the header and of a balance section.
    """

    kind: str
    value: str
    line: int
    start: int
    end: int = 0
    is_closed: bool = False
    fields: dict[str, str] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)
    _key: str = ""
    _value: str = ""
    _continued: list[str] = field(default_factory=list)

    def begin(self, key: str, value: str, line: int) -> None:
        self.finish_field()
        self._key, self._value = key, value
        if key and self.kind != keys.DOCUMENT:
            self.lines.setdefault(key, line)

    def continue_field(self, content: str) -> None:
        """Append a line to the value of the last key; only a document's values have more than one line."""
        if self._key and self.kind == keys.DOCUMENT:
            self._continued.append(content)

    def finish_field(self) -> None:
        """Keep a known key's first value that is not empty, and note a conflict with another one."""
        key, value = self._key, self._value
        if not key:
            return
        if self._continued:
            value = "\n".join((value, *self._continued))
            self._continued.clear()
        self._key = ""
        known = self.fields.get(key)
        if not known:
            self.fields[key] = value
        elif value and key in keys.EXACT and without_blanks(known) != without_blanks(value):
            self.conflicts.append(key)


def lines_of(text: str) -> Iterator[Line]:
    """Yield the lines of `text` that are not blank; CRLF, CR and LF each end one."""
    end = 0
    for number, line in enumerate(chain.from_iterable(_parts(text)), 1):
        start, end = end, end + len(line)
        content = line.strip(_AROUND)
        if content:
            key, equals, value = content.partition("=")
            value_or_none = value.lstrip(BLANKS) if equals else None
            yield Line(number, start, end, content, key.rstrip(BLANKS), value_or_none)


def _parts(text: str) -> Iterator[StringIO]:
    """Yield `text` in parts that end with a line, each to be iterated by lines; as a whole it took 64 MiB."""
    start = 0
    while start < len(text):
        least = start + _PART_CHARS
        end = text.find("\n", least) + 1 or text.find("\r", least) + 1 or len(text)
        yield StringIO(text[start:end], newline="")
        start = end


class Splitter:
    """Yields the blocks of a file. After the last one its other fields say what was found besides.

    `accounts` are the header's, in their order. `unknown_sections` are (line, name). `last_line` is the last
    line that is not blank, `end_line` the one of КонецФайла, `stray_line` the first one after it.
    """

    def __init__(self) -> None:
        self.header = Block(_HEADER, "", 1, 0)
        self.accounts: dict[str, None] = {}
        self.unknown_sections: list[tuple[int, str]] = []
        self.odd_case_line: int | None = None
        self.last_line: int | None = None
        self.end_line: int | None = None
        self.stray_line: int | None = None
        self._block: Block | None = None
        self._is_skipping = False

    def split(self, lines: Iterator[Line]) -> Iterator[Block]:
        """Yield each balance section and document as soon as it ends, whether it was closed or not."""
        for line in lines:
            if self.end_line is not None:
                self.stray_line = line.number
                return
            self.last_line = line.number
            if self._take_plain_field(line):
                continue
            ended = self._read(line)
            if ended:
                yield ended
        if self._block:
            yield self._end(self._block, self._block.end, is_closed=False)
        self.header.finish_field()

    def _take_plain_field(self, line: Line) -> bool:
        """Take a document's field that is spelled as in the format, as most lines are; else return False."""
        number, _, end, _, spelling, value = line
        key = keys.PLAIN.get(spelling)
        block = self._block
        if key is None or value is None or block is None or block.kind != keys.DOCUMENT or self._is_skipping:
            return False
        block.end = end
        block.begin(key, value, number)
        return True

    def _read(self, line: Line) -> Block | None:
        """Take one line; return the block that ends with it or before it."""
        known = keys.known(line.key)
        if known in {keys.BALANCES, keys.DOCUMENT}:
            self._note_case(line, known)
            return self._open(line, known)
        if line.value is None and known in {keys.BALANCES_END, keys.DOCUMENT_END, keys.FILE_END}:
            self._note_case(line, known)
            return self._close(line, known)
        if self._is_skipping:
            self._is_skipping = line.value is not None or not _is_word(line.key, _SECTION_END)
        elif not self._is_in_document() and _is_word(line.key, _SECTION):
            self._skip_section(line)
        else:
            self._take_field(line, known)
        return None

    def _is_in_document(self) -> bool:
        return self._block is not None and self._block.kind == keys.DOCUMENT

    def _skip_section(self, line: Line) -> None:
        self._is_skipping = True
        if len(self.unknown_sections) < UNKNOWN_SECTIONS_MAX:
            self.unknown_sections.append((line.number, line.key))

    def _open(self, line: Line, kind: str) -> Block | None:
        ended = self._block and self._end(self._block, line.start, is_closed=False)
        self._is_skipping = False
        self._block = Block(kind, line.value or "", line.number, line.start)
        return ended

    def _close(self, line: Line, known: str) -> Block | None:
        """End the open block at its own end, or unclosed at the file's; any other end closes nothing."""
        self._is_skipping = False
        if known == keys.FILE_END:
            self.end_line = line.number
        own_end = {keys.BALANCES: keys.BALANCES_END, keys.DOCUMENT: keys.DOCUMENT_END}
        if self._block and known in {own_end[self._block.kind], keys.FILE_END}:
            is_closed = known != keys.FILE_END
            return self._end(self._block, line.end if is_closed else line.start, is_closed=is_closed)
        return None

    def _end(self, block: Block, end: int, *, is_closed: bool) -> Block:
        block.finish_field()
        block.end, block.is_closed = end, is_closed
        self._block = None
        return block

    def _take_field(self, line: Line, known: str | None) -> None:
        block = self._block or self.header
        block.end = line.end
        if line.value is None or not (known or _is_key(line.key)):
            block.continue_field(line.content)
            return
        self._note_case(line, known)
        key = keys.SYNONYMS.get(known or "", known or "")
        if block is self.header and key == keys.ACCOUNT:
            account = without_blanks(line.value)
            self.accounts.update({account: None} if account else {})
        else:
            block.begin(key, line.value, line.number)

    def _note_case(self, line: Line, known: str | None) -> None:
        if known and known != line.key and self.odd_case_line is None:
            self.odd_case_line = line.number


def _is_word(text: str, beginning: str) -> bool:
    """Return whether `text` is a single word, longer than its `beginning`."""
    folded = text.casefold()
    return folded.startswith(beginning) and folded != beginning and _KEY.fullmatch(text) is not None


def _is_key(text: str) -> bool:
    """Return whether an unknown key is one: a single word that begins with a capital letter."""
    return text[:1].isupper() and _KEY.fullmatch(text) is not None
