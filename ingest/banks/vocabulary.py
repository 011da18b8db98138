"""Event words and currency codes, compared in any spelling that looks the same to people.

A word is known or unknown; nothing is assumed about an unknown one.
"""

import unicodedata
from collections.abc import Iterable

from ingest.exceptions import InvalidDelivery
from ingest.field_rules import FIELD_CHARS_SHOWN

# Cyrillic and Greek capitals that look like Latin ones: people type them, and banks' systems store them.
_LOOKALIKES = str.maketrans(
    "АВСԀЕНІЈКМОРЅТУҮХԚԜ" + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "ABCDEHIJKMOPSTYYXQW" + "ABEZHIKMNOPTYX",
)
_CODE_DIGITS = 3
_INVISIBLE = "Cf"  # Unicode's category of soft hyphens, joiners and directional marks


def fold(word: str) -> str:
    """Normalize case, width and look-alike letters; remove invisible characters and outer space."""
    visible = "".join(each for each in word if unicodedata.category(each) != _INVISIBLE)
    return unicodedata.normalize("NFKC", visible).upper().translate(_LOOKALIKES).strip()


def fold_all(words: Iterable[str]) -> frozenset[str]:
    return frozenset(map(fold, words))


# 643 and RUB are from ISO 4217; 810 and RUR are the ruble's codes of before 1998, which account numbers and
# many systems still use.
RUBLES = fold_all(
    [
        *("RUB", "RUR", "643", "810", "₽", "ruble", "rubles", "Russian ruble"),
        *("руб", "руб.", "рубль", "рубли", "рублей", "российский рубль"),
    ]
)
# ISO 4217, list one of 2026-01-01, without XXX (no currency) and XTS (for tests).
_ISO_4217 = """
AED784 AFN971 ALL008 AMD051 AOA973 ARS032 AUD036 AWG533 AZN944 BAM977 BBD052 BDT050 BHD048 BIF108 BMD060
BND096 BOB068 BOV984 BRL986 BSD044 BTN064 BWP072 BYN933 BZD084 CAD124 CDF976 CHE947 CHF756 CHW948 CLF990
CLP152 CNY156 COP170 COU970 CRC188 CUP192 CVE132 CZK203 DJF262 DKK208 DOP214 DZD012 EGP818 ERN232 ETB230
EUR978 FJD242 FKP238 GBP826 GEL981 GHS936 GIP292 GMD270 GNF324 GTQ320 GYD328 HKD344 HNL340 HTG332 HUF348
IDR360 ILS376 INR356 IQD368 IRR364 ISK352 JMD388 JOD400 JPY392 KES404 KGS417 KHR116 KMF174 KPW408 KRW410
KWD414 KYD136 KZT398 LAK418 LBP422 LKR144 LRD430 LSL426 LYD434 MAD504 MDL498 MGA969 MKD807 MMK104 MNT496
MOP446 MRU929 MUR480 MVR462 MWK454 MXN484 MXV979 MYR458 MZN943 NAD516 NGN566 NIO558 NOK578 NPR524 NZD554
OMR512 PAB590 PEN604 PGK598 PHP608 PKR586 PLN985 PYG600 QAR634 RON946 RSD941 RUB643 RWF646 SAR682 SBD090
SCR690 SDG938 SEK752 SGD702 SHP654 SLE925 SOS706 SRD968 SSP728 STN930 SVC222 SYP760 SZL748 THB764 TJS972
TMT934 TND788 TOP776 TRY949 TTD780 TWD901 TZS834 UAH980 UGX800 USD840 USN997 UYI940 UYU858 UYW927 UZS860
VED926 VES928 VND704 VUV548 WST882 XAD396 XAF950 XAG961 XAU959 XBA955 XBB956 XBC957 XBD958 XCD951 XCG532
XDR960 XOF952 XPD964 XPF953 XPT962 XSU994 XUA965 YER886 ZAR710 ZMW967 ZWG924
"""
FOREIGN = frozenset(code for pair in _ISO_4217.split() for code in (pair[:3], pair[3:])) - RUBLES


def is_rubles(code: str, field: str) -> bool:
    """Return True for rubles, False for another currency of ISO 4217. Raise InvalidDelivery otherwise."""
    word = fold(code)
    if word.isdecimal():
        word = word.zfill(_CODE_DIGITS)  # a number has lost its leading zeros
    if word in RUBLES:
        return True
    if word in FOREIGN:
        return False
    raise unknown_word(code, field)


def unknown_word(word: str, field: str) -> InvalidDelivery:
    return InvalidDelivery(field, f"{word[:FIELD_CHARS_SHOWN]!r} is not known")
