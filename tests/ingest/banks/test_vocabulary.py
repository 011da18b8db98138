"""Event words and currencies in any spelling that looks the same to people."""

import pytest
from babel.numbers import list_currencies

from ingest.banks.vocabulary import FOREIGN, fold, is_rubles
from ingest.exceptions import InvalidDelivery


@pytest.mark.parametrize(
    "word",
    [
        *("Credit", "CREDIT", " credit\n", "Сrеdit", "СRЕDІТ", "Ｃredit", "𝐂redit"),
        *("cre\u00addit", "\u202eCredit", "Cred\u200bit", "\ufeffCredit", "CRΕDΙΤ"),
    ],
)
def test_word_is_folded_in_every_spelling_that_looks_the_same(word: str) -> None:
    assert fold(word) == "CREDIT"


@pytest.mark.parametrize("word", ["Crédit", "Cr edit", "Credits", "Кредит", "", "Debit", "Cгedit"])
def test_different_word_stays_different(word: str) -> None:
    assert fold(word) != "CREDIT"


@pytest.mark.parametrize(
    "code",
    ["RUB", "rur", "643", "810", "RUВ", "ＲＵＢ", "РУБ", "руб.", " рублей ", "₽", "６４３", "Russian Ruble"],
)
def test_ruble_is_known_by_its_codes_and_names(code: str) -> None:
    assert is_rubles(code, "currency")


@pytest.mark.parametrize(
    "code", ["USD", "usd", "840", "EUR", "978", "CNY", "156", "36", "036", "8", "UЅD", "BYN"]
)
def test_foreign_currency_is_known_by_its_codes(code: str) -> None:
    assert not is_rubles(code, "currency")


@pytest.mark.parametrize(
    "code", ["", "XXX", "XTS", "999", "ABC", "0", "000", "6430", "643.0", "٦٤٣", "$", "RU", "DEM"]
)
def test_unknown_currency_is_refused(code: str) -> None:
    with pytest.raises(InvalidDelivery, match="is not known"):
        is_rubles(code, "currency")


def test_currencies_are_those_of_iso_4217() -> None:
    letters = {code for code in FOREIGN if code.isalpha()}

    assert len(letters) == len(FOREIGN) / 2 == 175
    assert letters - {"XAD"} <= list_currencies()  # which is of 2025
