"""Reading is total, linear and bounded: any bytes have a verdict, and twice the bytes are twice the work."""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statements import keys, reading
from statements.reading import StatementFile, read
from statements.report import as_json
from tests.statements.files import document, section, statement

CORPUS = [path.read_bytes() for path in sorted((Path(__file__).parent / "corpus").glob("*.txt"))]
ENCODINGS = ["cp1251", "cp866", "utf-8", "utf-8-sig", "utf-16"]
WORDS = [
    *("1CClientBankExchange", keys.FILE_END, keys.BALANCES, keys.BALANCES_END, keys.DOCUMENT_END),
    *("СекцияДокумент=х", "СекцияНет", "КонецНет", "Сумма=", "Сумма=10.00", "Сумма=-1", "Дата=01.03.2026"),
    *("РасчСчет=40702810900000000001", "ПолучательСчет=40702810900000000001", "НачальныйОстаток=0"),
    *(
        "ПлательщикСчет=1",
        "ПлательщикИНН=0",
        "Плательщик=ИНН 0033003303",
        "=",
        "",
        "\x1a",
        "\x00",
        "и так далее",
    ),
    *("ДатаНачала=31.12.9999", "ДатаКонца=01.01.0001", "ДатаСоздания=01.03.2026", "ВремяСоздания=99:99"),
]


def judge(body: bytes) -> StatementFile:
    """Read `body`, and check what holds of every verdict."""
    file = read(body)
    report = as_json(file)
    json.dumps(report)
    assert report["verdict"] in {"ok", "unproven", "partial", "refused"}
    assert (report["verdict"] == "refused") == bool(report["errors"])
    for found in report["documents"]:
        assert not (found["errors"] and found["effects_kopecks"])
        assert found["creditable"] == (found["not_creditable"] is None)
        assert not found["creditable"] or found["amount_kopecks"] > 0
    return file


@given(st.binary(max_size=2000))
def test_any_bytes_have_a_verdict(body: bytes) -> None:
    judge(body)


@given(st.text(max_size=500), st.sampled_from(ENCODINGS))
def test_any_lines_after_the_first_have_a_verdict(text: str, encoding: str) -> None:
    judge(f"1CClientBankExchange\n{text}".encode(encoding, "replace"))


@given(
    st.lists(st.sampled_from(WORDS), max_size=60),
    st.sampled_from(ENCODINGS),
    st.sampled_from(["\n", "\r", "\r\n"]),
)
def test_any_order_of_the_formats_lines_has_a_verdict(lines: list[str], encoding: str, end: str) -> None:
    judge(end.join(["1CClientBankExchange", *lines]).encode(encoding, "replace"))


@settings(max_examples=300)
@given(st.sampled_from(CORPUS), st.randoms(use_true_random=False))
def test_damaged_files_of_the_corpus_have_a_verdict(body: bytes, chance: random.Random) -> None:
    damaged = bytearray(body)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(damaged) + 1)
        cut = chance.choice([0, 0, 1, 40, 400])
        damaged[at : at + cut] = chance.choice(
            [b"", chance.randbytes(3), b"\r", b"=", bytes(damaged[:at])[-60:]]
        )
    judge(bytes(damaged))


@settings(max_examples=300)
@given(st.sampled_from([body for body in CORPUS if read(body).verdict == "ok"]), st.data())
def test_what_is_cut_off_unnoticed_adds_up_to_zero(body: bytes, data: st.DataObject) -> None:
    """A cut file is refused, or proven with the same sums: a credit and its reversal add up to zero."""
    file, whole = judge(body[: data.draw(st.integers(0, len(body)))]), read(body)

    assert file.verdict == "refused" or [
        (account.closing, account.documents_credited, account.documents_debited) for account in file.accounts
    ] == [
        (account.closing, account.documents_credited, account.documents_debited) for account in whole.accounts
    ]


def work(body: bytes) -> int:
    """Return how many lines of the reader's code and how many function calls, C's included, reading takes."""
    steps = 0

    def count_lines(_: FrameType, __: str, ___: Any) -> Callable[..., Any]:
        nonlocal steps
        steps += 1
        return count_lines

    def count_calls(_: FrameType, __: str, ___: Any) -> None:
        nonlocal steps
        steps += 1

    trace = sys.gettrace()
    sys.settrace(count_lines)
    sys.setprofile(count_calls)
    try:
        read(body)
    finally:
        sys.settrace(trace)
        sys.setprofile(None)
    return steps


@pytest.mark.parametrize(
    "make",
    [
        lambda size: statement(section(), document() * size),
        lambda size: statement(section() * size, document()),
        lambda size: statement(section(), document("и так далее\r\n" * size)),
        lambda size: statement(section(), document("".join(f"Ключ{i}=1\r\n" for i in range(size)))),
        lambda size: statement(section(), document("".join(f"Сумма={i}\r\n" for i in range(size)))),
        lambda size: statement(
            "".join(f"РасчСчет={i}\r\n" for i in range(size)), section(), document() * size
        ),
        lambda size: statement(section(), "СекцияНет\r\nА=1\r\nКонецНет\r\n" * size),
        lambda size: statement(section(), "СекцияНет\r\n" * size),
        lambda size: statement(section(), document(Плательщик="ИНН " * size, Сумма="1 " * size)),
        lambda size: statement(section(), document(), end="\r\n" * size),
    ],
    ids=[
        *(
            "documents",
            "sections",
            "continuation",
            "unknown-keys",
            "conflicts",
            "accounts",
            "unknown-sections",
        ),
        *("nested", "long-values", "blank-lines"),
    ],
)
def test_twice_the_bytes_are_twice_the_work(make: Callable[[int], str]) -> None:
    once, twice = (work(make(size).encode("cp1251")) for size in (100, 200))

    assert twice <= 2.05 * once


def test_file_of_too_many_bytes_is_refused() -> None:
    body = b" " * reading.BODY_BYTES_MAX

    assert [error.code for error in read(body).errors] == ["empty"]
    assert [error.code for error in read(body + b" ").errors] == ["too_large"]


@pytest.mark.parametrize("encoding", ["cp1251", "utf-8", "utf-16"])
def test_line_of_too_many_bytes_is_refused(encoding: str) -> None:
    width = len("я".encode(encoding)) - len("".encode(encoding))
    letters = reading.LINE_BYTES_MAX // width
    key = "НазначениеПлатежа="
    fits = document(НазначениеПлатежа="я" * (letters - len(key)))
    too_long = document(НазначениеПлатежа="я" * (letters - len(key) + 1))

    assert read(statement(section(), fits).encode(encoding)).verdict == "ok"
    assert [
        (error.code, error.line) for error in read(statement(section(), too_long).encode(encoding)).errors
    ] == [("line_too_long", 23)]


@pytest.mark.parametrize(
    "block", [document(), section(), "РасчСчет={}\r\n"], ids=["documents", "sections", "accounts"]
)
def test_too_many_documents_sections_or_accounts_are_refused(
    block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "DOCUMENTS_MAX", 5)
    blocks = "".join(block.replace("{}", str(number)) for number in range(6))

    file = read(statement(blocks, document()).encode("cp1251"))

    assert [error.code for error in file.errors] == ["too_many_documents"]
    assert file.documents == ()


def test_limits_are_those_of_the_documentation() -> None:
    assert (reading.BODY_BYTES_MAX, reading.DOCUMENTS_MAX, reading.LINE_BYTES_MAX) == (
        16 << 20,
        50_000,
        64 << 10,
    )
