"""Statement files for tests: a header, a balance section and documents, each with keyword defaults."""

from collections.abc import Mapping

OWN = "40702810900000000001"
PAYER = "40702810110000000011"
HEADER = {"ВерсияФормата": "1.03", "Кодировка": "Windows", "РасчСчет": OWN}
BALANCES = {
    "ДатаНачала": "01.03.2026",
    "ДатаКонца": "02.03.2026",
    "РасчСчет": OWN,
    "НачальныйОстаток": "0.00",
    "ВсегоПоступило": "10.00",
    "ВсегоСписано": "0.00",
    "КонечныйОстаток": "10.00",
}
FIELDS = {
    "Номер": "7",
    "Дата": "01.03.2026",
    "Сумма": "10.00",
    "ПлательщикСчет": PAYER,
    "ПлательщикИНН": "0033003303",
    "ПолучательСчет": OWN,
    "ПолучательИНН": "0011001101",
    "ДатаПоступило": "02.03.2026",
    "НазначениеПлатежа": "Оплата",
}


def lines(fields: Mapping[str, str]) -> str:
    return "".join(f"{key}={value}\r\n" for key, value in fields.items())


def section(**fields: str) -> str:
    return f"СекцияРасчСчет\r\n{lines(BALANCES | fields)}КонецРасчСчет\r\n"


def document(extra: str = "", **fields: str) -> str:
    """Return a document of FIELDS changed by `fields`, with the text `extra` before its end."""
    return f"СекцияДокумент=Платежное поручение\r\n{lines(FIELDS | fields)}{extra}КонецДокумента\r\n"


def statement(*blocks: str, end: str = "КонецФайла\r\n", **fields: str) -> str:
    return f"1CClientBankExchange\r\n{lines(HEADER | fields)}{''.join(blocks)}{end}"
