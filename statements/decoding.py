"""Detect the encoding of a bank's statement file from its bytes alone, and decode it."""

import codecs
from dataclasses import dataclass

# The header names an encoding in words of its own; these are the ones in use, case-folded.
_DECLARED = {
    **dict.fromkeys(("windows", "windows-1251", "win1251", "cp1251", "1251", "ansi"), "cp1251"),
    **dict.fromkeys(("dos", "oem", "cp866", "866"), "cp866"),
    **dict.fromkeys(("utf-8", "utf8"), "utf-8"),
    **dict.fromkeys(("utf-16", "utf16", "unicode"), "utf-16"),
}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MARKERS = ("Кодировка", "ВерсияФормата", "РасчСчет", "СекцияДокумент")


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text without byte order mark. If `is_lossy`, some bytes were undecodable and are U+FFFD."""

    text: str
    encoding: str
    is_lossy: bool


def decode(body: bytes) -> Decoded:
    """Decode `body` by its byte order mark, else as strict UTF-8, else as the likelier of cp1251, cp866."""
    for mark, encoding in _MARKS:
        if body.startswith(mark):
            return _decode_as(encoding, body[len(mark) :])
    try:
        return Decoded(body.decode("utf-8"), "utf-8", is_lossy=False)
    except UnicodeDecodeError:
        return _decode_as(max(("cp1251", "cp866"), key=lambda encoding: _count_markers(body, encoding)), body)


def declares(declared: str, encoding: str) -> bool:
    """Return whether the header's `declared` means `encoding`."""
    return _DECLARED.get(declared.casefold()) == encoding.removesuffix("-le").removesuffix("-be")


def _decode_as(encoding: str, body: bytes) -> Decoded:
    try:
        return Decoded(body.decode(encoding), encoding, is_lossy=False)
    except UnicodeDecodeError:
        return Decoded(body.decode(encoding, errors="replace"), encoding, is_lossy=True)


def _count_markers(body: bytes, encoding: str) -> int:
    """Count the format's keys in `body`, as the format writes them and in capitals or small letters."""
    return sum(
        body.count(spelling.encode(encoding))
        for marker in _MARKERS
        for spelling in (marker, marker.upper(), marker.lower())
    )
