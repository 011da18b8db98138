"""Rules of the reader that need a file of their own, each beside what the corpus shows."""

import pytest

from statements import blocks
from statements.blocks import lines_of
from statements.document_terms import Error
from statements.documents import Document
from statements.reading import StatementFile, read
from tests.statements.files import OWN, document, section, statement

ZERO = section(ВсегоПоступило="0", КонечныйОстаток="0")


def read_text(text: str, encoding: str = "cp1251") -> StatementFile:
    return read(text.encode(encoding))


def only_document(extra: str = "", **fields: str) -> Document:
    (found,) = read_text(statement(section(), document(extra, **fields))).documents
    return found


def codes(file: StatementFile) -> list[tuple[str, int | None]]:
    return [(finding.code, finding.line) for finding in (*file.errors, *file.warnings)]


def test_plain_file_is_ok_without_warnings() -> None:
    file = read_text(statement(section(), document()))

    assert (file.verdict, codes(file)) == ("ok", [])


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_each_line_end_is_one(end: str) -> None:
    file = read_text(statement(section(), document()).replace("\r\n", end))

    assert (file.verdict, file.documents[0].terms.line) == ("ok", 14)


def test_missing_end_of_a_proven_file_is_a_warning() -> None:
    file = read_text(statement(section(), document(), end=""))

    assert (file.verdict, codes(file)) == ("ok", [("end_missing", 24)])


def test_file_cut_between_days_is_truncated_though_its_first_day_adds_up() -> None:
    text = statement(section(), document(), end="", ДатаНачала="01.03.2026", ДатаКонца="03.03.2026")

    assert codes(read_text(text))[0] == ("truncated", 26)


def test_content_after_the_end_is_refused() -> None:
    file = read_text(statement(section(), document(), end="КонецФайла\r\n\x1a\r\nx"))

    assert (file.verdict, codes(file)) == ("refused", [("content_after_end", 27)])


def test_ctrl_z_behind_the_end_is_no_content() -> None:
    assert read_text(statement(section(), document(), end="КонецФайла\x1a")).verdict == "ok"


def test_keys_in_small_letters_are_read_with_a_warning() -> None:
    file = read_text(statement(section(), document()).replace("Сумма", "сумма").replace("Конец", "КОНЕЦ"))

    assert (file.verdict, codes(file)) == ("ok", [("key_case", 13)])


def test_undecodable_byte_is_a_warning_with_its_line() -> None:
    body = statement(section(), document()).encode("cp1251").replace("Оплата".encode("cp1251"), b"\xce\x98")
    file = read(body)

    assert (file.encoding, file.verdict) == ("cp1251", "ok")
    assert codes(file) == [("undecodable_bytes", 23)]
    assert file.documents[0].terms.purpose == "О\N{REPLACEMENT CHARACTER}"


def test_account_without_balances_makes_a_file_unproven() -> None:
    file = read_text(statement("РасчСчет=40702810200000000002\r\n", section(), document()))

    assert [account.proof for account in file.accounts] == ["holds", "unprovable"]
    assert file.verdict == "unproven"


def test_missing_turnover_proves_nothing() -> None:
    file = read_text(statement(section(ВсегоПоступило=""), document()))

    assert (file.verdict, file.accounts[0].proof) == ("unproven", "unprovable")


def test_sections_are_put_in_order_of_their_days() -> None:
    first = section(ДатаКонца="01.03.2026")
    second = section(
        ДатаНачала="02.03.2026", НачальныйОстаток="10", ВсегоПоступило="0", КонечныйОстаток="10.00"
    )
    file = read_text(statement(second, first, document()))

    assert (file.verdict, file.accounts[0].opening, file.accounts[0].closing) == ("ok", 0, 1000)


@pytest.mark.parametrize(
    ("text", "kopecks"),
    [
        *(("10", 1000), ("10.5", 1050), ("10,50", 1050), ("10.5000", 1050), ("-10.00", -1000)),
        *(("1 000.00", 100000), ("1\N{NO-BREAK SPACE}000,00", 100000), ("0010", 1000)),
        ("92233720368547758.07", 2**63 - 1),
    ],
)
def test_amounts(text: str, kopecks: int) -> None:
    assert only_document(Сумма=text).terms.amount == kopecks


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *(
            (text, "amount_invalid")
            for text in ("1.234,00", "1e3", "10 ₽", "+1", ".5", "5.", "١", "--1", "1'0")
        ),
        *((text, "amount_invalid") for text in ("92233720368547758.08", "9" * 5000)),
        *(
            ("1.001", "amount_decimals"),
            ("0.00", "amount_zero"),
            ("-0", "amount_zero"),
            (" ", "amount_missing"),
        ),
    ],
)
def test_what_is_no_amount_is_an_error(text: str, code: str) -> None:
    file = read_text(statement(ZERO, document(Сумма=text)), "utf-8")

    assert (file.verdict, file.documents[0].errors) == ("partial", (Error(code, "Сумма"),))
    assert file.documents[0].movements == ()


def test_line_after_an_amount_is_not_part_of_its_digits() -> None:
    text = statement(section(), document()).replace("Сумма=10.00\r\n", "Сумма=10.00\r\n00\r\n")

    assert read_text(text).documents[0].errors == (Error("amount_invalid", "Сумма"),)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"Дата": ""}, Error("date_missing", "Дата")),
        ({"Дата": "31.02.2026"}, Error("date_invalid", "Дата")),
        ({"ДатаПоступило": "2026-03-02"}, Error("date_invalid", "ДатаПоступило")),
    ],
)
def test_wrong_dates_are_errors(fields: dict[str, str], error: Error) -> None:
    assert only_document(**fields).errors == (error,)


@pytest.mark.parametrize("key", ["Номер", "Дата", "ПлательщикИНН", "ПлательщикСчет", "ДатаПоступило"])
def test_repeated_key_with_another_value_is_a_conflict(key: str) -> None:
    document = only_document(f"{key}=1\r\n")

    assert Error("key_conflict", key) in document.errors
    assert document.not_creditable == "document_error"


def test_repeated_key_with_an_empty_value_is_fine() -> None:
    assert only_document("Сумма=\r\nНомер= 7\r\n").errors == ()


@pytest.mark.parametrize(
    ("extra", "purpose"),
    [
        ("и ещё\r\n", "Оплата и ещё"),
        ("в т.ч. НДС=5\r\n", "Оплата в т.ч. НДС=5"),
        ("ндс=5\r\n", "Оплата ндс=5"),
        ("НДС=5\r\nи ещё\r\n", "Оплата"),
        ("СекцияНет\r\n", "Оплата СекцияНет"),
    ],
)
def test_line_without_a_key_continues_the_value_before(extra: str, purpose: str) -> None:
    assert only_document(extra).terms.purpose == purpose


@pytest.mark.parametrize(
    ("debited", "credited", "direction"),
    [("02.03.2026", "", "out"), ("", "02.03.2026", "in"), ("", "", "internal")],
)
def test_direction_between_own_accounts(debited: str, credited: str, direction: str) -> None:
    document = only_document(ПлательщикСчет=OWN, ДатаСписано=debited, ДатаПоступило=credited)

    assert document.direction == direction


def test_transfer_from_an_account_to_itself_moves_both_ways() -> None:
    proven = section(ВсегоСписано="10", КонечныйОстаток="0")
    file = read_text(statement(proven, document(ПлательщикСчет=OWN, ДатаСписано="02.03.2026")))

    assert (file.verdict, len(file.documents[0].movements)) == ("ok", 2)


@pytest.mark.parametrize(
    ("inn", "reason"),
    [
        *(("0033003303", None), ("", "inn_missing"), ("0", "inn_zero"), ("DE123", "inn_not_digits")),
        *(("٠٠٣٣٠٠٣٣٠٣", "inn_not_digits"), ("12345", "inn_length"), ("0011001101", "own_money")),
    ],
)
def test_payers_inn_decides_what_is_creditable(inn: str, reason: str | None) -> None:
    file = read_text(statement(section(), document(ПлательщикИНН=inn)), "utf-8")

    assert file.documents[0].not_creditable == reason


def test_owner_is_known_from_other_documents_if_the_payee_has_no_inn() -> None:
    out = document(ПлательщикСчет=OWN, ПлательщикИНН="0011001101", ПолучательСчет="4" * 20, ПолучательИНН="")
    own = document(ПлательщикИНН="0011001101", ПолучательИНН="")

    assert read_text(statement(ZERO, out, own)).documents[1].not_creditable == "own_money"


def test_dollars_are_not_creditable() -> None:
    account = "40702840900000000001"
    text = statement(section(), document()).replace(OWN, account)

    assert read_text(text).documents[0].not_creditable == "currency"


def test_span_of_a_document_has_its_unknown_keys() -> None:
    file = read_text(statement(section(), document("Ключ=значение\r\n")))
    terms = file.documents[0].terms
    raw = file.text[terms.start : terms.end]

    assert raw.startswith("СекцияДокумент=")
    assert raw.endswith("Ключ=значение\r\nКонецДокумента\r\n")


@pytest.mark.parametrize("chars", range(1, 8))
def test_lines_do_not_depend_on_the_parts_in_which_they_are_read(
    chars: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = "a=1\r\nb=2\r\rc=3\n\n\rd=4\x0b\x85\r\ne=\r\nf"
    expected = list(lines_of(whole))
    monkeypatch.setattr(blocks, "_PART_CHARS", chars)

    assert list(lines_of(whole)) == expected
    assert [line.number for line in expected] == [1, 2, 4, 7, 8, 9]
