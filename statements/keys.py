"""The keys of 1CClientBankExchange that the reader uses, and the spelling that the format gives them.

Source: v8.1c.ru/edi/edi_stnd/100/101.htm, and files of banks for the keys of Kazakhstan.
"""

FIRST_LINE = "1CClientBankExchange"
FILE_END = "КонецФайла"
BALANCES, BALANCES_END = "СекцияРасчСчет", "КонецРасчСчет"
DOCUMENT, DOCUMENT_END = "СекцияДокумент", "КонецДокумента"

ACCOUNT = "РасчСчет"
FIRST_DAY, LAST_DAY = "ДатаНачала", "ДатаКонца"
OPENING, CREDITED, DEBITED, CLOSING = "НачальныйОстаток", "ВсегоПоступило", "ВсегоСписано", "КонечныйОстаток"
ENCODING, VERSION, SENDER = "Кодировка", "ВерсияФормата", "Отправитель"
CREATED_DATE, CREATED_TIME = "ДатаСоздания", "ВремяСоздания"

NUMBER, DATE, AMOUNT = "Номер", "Дата", "Сумма"
DEBITED_ON, CREDITED_ON = "ДатаСписано", "ДатаПоступило"
PURPOSE = "НазначениеПлатежа"
PURPOSE_PARTS = tuple(f"{PURPOSE}{part}" for part in range(1, 7))
UIN = "Код"
PAYER, PAYEE = "Плательщик", "Получатель"
# A side's keys are these after Плательщик or Получатель. РасчСчет stands alone if the side's bank is direct.
SIDE_INN, SIDE_KPP = "ИНН", "КПП"
SIDE_ACCOUNTS = ("Счет", "РасчСчет", "ИИК")
SIDE_NAMES = ("", "1")

# Kazakhstan: other keys with the same meaning; a document has an amount of money in or of money out.
AMOUNT_IN, AMOUNT_OUT = "СуммаПриход", "СуммаРасход"
BOOKED_ON = "ДатаОперации"
SYNONYMS = {
    "НомерДокумента": NUMBER,
    "ДатаДокумента": DATE,
    **{f"{side}БИН_ИИН": f"{side}{SIDE_INN}" for side in (PAYER, PAYEE)},
}

# Two different values of one of these in one document say that no one can know which is meant.
EXACT = frozenset(
    (
        *(NUMBER, DATE, AMOUNT, AMOUNT_IN, AMOUNT_OUT, DEBITED_ON, CREDITED_ON, BOOKED_ON),
        *(ACCOUNT, FIRST_DAY, LAST_DAY, OPENING, CREDITED, DEBITED, CLOSING),
        *(f"{side}{key}" for side in (PAYER, PAYEE) for key in (SIDE_INN, *SIDE_ACCOUNTS)),
    )
)
_SIDES = tuple(
    f"{side}{key}"
    for side in (PAYER, PAYEE)
    for key in (
        SIDE_INN,
        SIDE_KPP,
        *SIDE_ACCOUNTS,
        *SIDE_NAMES,
        "2",
        "3",
        "4",
        "Банк1",
        "Банк2",
        "БИК",
        "Корсчет",
    )
)
_OTHERS = (
    *("КвитанцияДата", "КвитанцияВремя", "КвитанцияСодержание", "ВидПлатежа", "КодНазПлатежа", "ВидОплаты"),
    *("СтатусСоставителя", "ПоказательКБК", "ОКАТО", "ПоказательОснования", "ПоказательПериода"),
    *("ПоказательНомера", "ПоказательДаты", "ПоказательТипа", "Очередность", "СрокАкцепта", "ВидАккредитива"),
    *("СрокПлатежа", "УсловиеОплаты1", "УсловиеОплаты2", "УсловиеОплаты3", "ПлатежПоПредст", "ДополнУсловия"),
    *("НомерСчетаПоставщика", "ДатаОтсылкиДок", "ВидДокумента"),
)
_KNOWN = {
    spelling: key
    for key in (
        *(FILE_END, BALANCES, BALANCES_END, DOCUMENT, DOCUMENT_END, ACCOUNT, FIRST_DAY, LAST_DAY),
        *(OPENING, CREDITED, DEBITED, CLOSING, ENCODING, VERSION, SENDER, CREATED_DATE, CREATED_TIME),
        *(NUMBER, DATE, AMOUNT, DEBITED_ON, CREDITED_ON, PURPOSE, *PURPOSE_PARTS, UIN),
        *(AMOUNT_IN, AMOUNT_OUT, BOOKED_ON, *SYNONYMS, *_SIDES, *_OTHERS),
    )
    for spelling in (key, key.casefold())
}
_STRUCTURAL = {FILE_END, BALANCES, BALANCES_END, DOCUMENT, DOCUMENT_END}
# The fields that are spelled as in the format, by the key that the reader uses.
PLAIN = {key: SYNONYMS.get(key, key) for key in {*_KNOWN.values()} - _STRUCTURAL}


def known(key: str) -> str | None:
    """Return `key` as the format spells it, or None if the format has no such key in any letter case."""
    return _KNOWN.get(key) or _KNOWN.get(key.casefold())
