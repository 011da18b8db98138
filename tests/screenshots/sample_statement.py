"""A bank statement for the screenshots and the browser's test; needs no Django."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

ACCOUNT = "40702810900000000001"
OWN_INN, OWN_NAME = "7743013902", "ООО «Наша компания»"
FILE = "kl_to_1c.txt"  # in the stack's data folder
PAYER_ACCOUNT = "40702810100000000077"


@dataclass(frozen=True)
class Movement:
    """What was paid to us, or with `is_out` by us."""

    name: str
    inn: str
    number: str
    kopecks: int
    purpose: str = "Оплата по счёту"
    is_out: bool = False


def statement(
    first: date, last: date, opening: int, movements: Iterable[Movement], written_on: date | None = None
) -> bytes:
    """Return a kl_to_1c.txt whose sums prove it; everything was booked on the last day."""
    documents = list(movements)
    received = sum(each.kopecks for each in documents if not each.is_out)
    paid = sum(each.kopecks for each in documents if each.is_out)
    header = {
        "ВерсияФормата": "1.03",
        "Кодировка": "Windows",
        "Отправитель": "Банк",
        "ДатаСоздания": _day(written_on or last + timedelta(days=1)),
        "ВремяСоздания": "08:15:00",
        "ДатаНачала": _day(first),
        "ДатаКонца": _day(last),
        "РасчСчет": ACCOUNT,
    }
    balances = {
        "ДатаНачала": _day(first),
        "ДатаКонца": _day(last),
        "РасчСчет": ACCOUNT,
        "НачальныйОстаток": rubles(opening),
        "ВсегоПоступило": rubles(received),
        "ВсегоСписано": rubles(paid),
        "КонечныйОстаток": rubles(opening + received - paid),
    }
    lines = ["1CClientBankExchange", *_fields(header)]
    lines += ["СекцияРасчСчет", *_fields(balances), "КонецРасчСчет"]
    for each in documents:
        lines += ["СекцияДокумент=Платежное поручение", *_fields(_document(each, last)), "КонецДокумента"]
    return "\r\n".join([*lines, "КонецФайла", ""]).encode("cp1251")


def _document(each: Movement, day: date) -> dict[str, str]:
    ours = (ACCOUNT, OWN_INN, OWN_NAME)
    theirs = (PAYER_ACCOUNT, each.inn, each.name)
    payer, payee = (ours, theirs) if each.is_out else (theirs, ours)
    sides = {
        f"{side}{key}": value
        for side, values in (("Плательщик", payer), ("Получатель", payee))
        for key, value in zip(("Счет", "ИНН", "1"), values, strict=True)
    }
    booked = "ДатаСписано" if each.is_out else "ДатаПоступило"
    terms = {"Номер": each.number, "Дата": _day(day), "Сумма": rubles(each.kopecks), booked: _day(day)}
    return terms | sides | {"НазначениеПлатежа": each.purpose}


def rubles(kopecks: int) -> str:
    return f"{kopecks // 100}.{kopecks % 100:02}"


def _fields(fields: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in fields.items()]


def _day(day: date) -> str:
    return f"{day:%d.%m.%Y}"
