"""Words that tell payments from other events: known in any spelling that people take for the same."""

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
def test_a_word_is_the_same_in_every_spelling_that_looks_so(word: str) -> None:
    assert fold(word) == "CREDIT"


@pytest.mark.parametrize("word", ["Crédit", "Cr edit", "Credits", "Кредит", "", "Debit", "Cгedit"])
def test_another_word_stays_another(word: str) -> None:
    assert fold(word) != "CREDIT"


@pytest.mark.parametrize(
    "code",
    ["RUB", "rur", "643", "810", "RUВ", "ＲＵＢ", "РУБ", "руб.", " рублей ", "₽", "６４３", "Russian Ruble"],
)
def test_the_ruble_is_known_by_its_codes_and_names(code: str) -> None:
    assert is_rubles(code, "currency")


@pytest.mark.parametrize(
    "code", ["USD", "usd", "840", "EUR", "978", "CNY", "156", "36", "036", "8", "UЅD", "BYN"]
)
def test_another_currency_is_known_by_its_codes(code: str) -> None:
    assert not is_rubles(code, "currency")


@pytest.mark.parametrize(
    "code", ["", "XXX", "XTS", "999", "ABC", "0", "000", "6430", "643.0", "٦٤٣", "$", "RU", "DEM"]
)
def test_what_is_no_currency_is_unknown(code: str) -> None:
    with pytest.raises(InvalidDelivery, match="is not known"):
        is_rubles(code, "currency")


def test_the_currencies_are_real_ones() -> None:
    letters = {code for code in FOREIGN if code.isalpha()}

    assert len(letters) == len(FOREIGN) / 2 == 175
    assert letters - {"XAD"} <= list_currencies()  # which is of 2025
