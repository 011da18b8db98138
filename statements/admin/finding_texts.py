"""The reader's codes of errors and warnings as sentences for accountants, in the viewer's language."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from statements import importing

_TEXTS = {
    "empty": gettext_lazy("The file is empty."),
    "not_1c": gettext_lazy("This is no bank statement for 1C: the first line is not 1CClientBankExchange."),
    "truncated": gettext_lazy("The file is cut off: its end is missing. Download it from the bank again."),
    "content_after_end": gettext_lazy("Something follows the end of the statement."),
    "too_large": gettext_lazy("The file has more than 16 MiB. Download shorter periods."),
    "line_too_long": gettext_lazy("A line is longer than 64 KiB."),
    "too_many_documents": gettext_lazy("The file has more than 50 000 documents. Download shorter periods."),
    importing.NO_ACCOUNT: gettext_lazy("The file doesn't say of which account it is."),
    importing.NOT_OURS: gettext_lazy("The account is not among our own accounts."),
    "encoding_differs": gettext_lazy("The file is in another encoding than it says."),
    "undecodable_bytes": gettext_lazy("Some characters are unreadable."),
    "key_case": gettext_lazy("Keys are not written as in the format of 1C."),
    "unknown_section": gettext_lazy("A section that the format doesn't have is skipped."),
    "period_backwards": gettext_lazy("The period ends before it begins."),
    "outside_period": gettext_lazy("A document was booked outside the statement's period."),
    "period_gap": gettext_lazy("The statement leaves out days between its sections."),
    "day_not_over": gettext_lazy(
        "The last day was not over when the bank wrote the file: more documents may come."
    ),
    "no_balances": gettext_lazy("The file has no balances: nothing proves that all documents are there."),
    "end_missing": gettext_lazy("The last line is missing, but the sums prove all documents."),
    "unclosed": gettext_lazy("The document has no end."),
    "key_conflict": gettext_lazy("The document says two different things about one field."),
    "amount_missing": gettext_lazy("The document has no amount."),
    "amount_invalid": gettext_lazy("The amount is unreadable."),
    "amount_decimals": gettext_lazy("The amount has parts of a kopeck."),
    "amount_zero": gettext_lazy("The amount is zero."),
    "date_missing": gettext_lazy("The document has no date."),
    "date_invalid": gettext_lazy("The date is unreadable."),
    "account_foreign": gettext_lazy("Neither payer nor payee is the account of the statement."),
}


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence about a line of a file; `line` is from 1, None if it is of the whole file."""

    line: int | None
    text: str


def sentence(code: str, default: str = "") -> str:
    """Return the sentence of a code; one that is not known here is shown as it is."""
    return str(_TEXTS.get(code, default or code))


def sentences(findings: Iterable[Mapping[str, Any]]) -> list[Line]:
    """Return the stored errors or warnings; of an error with the field that it is about."""
    return [Line(finding["line"], _with_key(finding)) for finding in findings]


def _with_key(finding: Mapping[str, Any]) -> str:
    text = sentence(finding["code"], finding.get("reason", ""))
    return _("{text} Field: {field}.").format(text=text, field=finding["key"]) if finding.get("key") else text
