from decimal import Decimal

import pytest

from ledger.inn import is_checksum_valid, is_inn
from ledger.money import rubles
from tests.factories import IVANOV, ROMASHKA, SAMPLE, VASILEK


@pytest.mark.parametrize(
    ("kopecks", "expected"),
    [
        (0, "0"),
        (145_000_00, "145000"),
        (1, "0.01"),
        (1_10, "1.10"),
        (9_223_372_036_854_775_807, "92233720368547758.07"),
    ],
)
def test_rubles_are_exact_to_the_kopeck(kopecks: int, expected: str) -> None:
    assert str(rubles(kopecks)) == expected


def test_whole_rubles_are_integers_and_others_decimals() -> None:
    assert type(rubles(1_00)) is int
    assert type(rubles(1_01)) is Decimal


@pytest.mark.parametrize("inn", [ROMASHKA, VASILEK, IVANOV])
def test_right_check_digits_are_valid(inn: str) -> None:
    assert is_checksum_valid(inn)


@pytest.mark.parametrize("inn", [SAMPLE, "7707083894", "500100732258", "500100732269"])
def test_wrong_check_digits_are_invalid(inn: str) -> None:
    assert is_inn(inn)
    assert not is_checksum_valid(inn)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "123456789",
        "12345678901",
        "1234567890123",
        "123456789x",
        " 1234567890",
        "1234567890\n",
        "１２３４５６７８９０",
    ],
)
def test_other_text_is_not_an_inn(text: str) -> None:
    assert not is_inn(text)
