"""Two tellings of one operation side by side, as people read them."""

from dataclasses import dataclass, fields

from django.utils.formats import date_format, get_format
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from ledger.money import format_rubles
from ledger.terms import PaymentTerms

_NAMES: dict[str, str | Promise] = {
    "operation_id": _("operation id"),
    "inn": _("payer INN"),
    "amount_kopecks": _("amount"),
    "document_number": _("document number"),
    "document_date": _("document date"),
    "bank_reference": _("bank's id"),  # these are no terms, but they may differ
    "source": _("source"),
}


@dataclass(frozen=True)
class FieldDiff:
    """One field."""

    name: str | Promise
    first: str
    other: str
    differs: bool


def field_labels(difference: str) -> str:
    """The fields of a stored difference, as people read them; what is no field stays as it is."""
    return ", ".join(str(_NAMES.get(name, name)) for name in difference.split(", "))


def diff_terms(first: PaymentTerms, other: PaymentTerms) -> list[FieldDiff]:
    """Field by field; all but the operation id, which is what they have in common."""
    return [
        FieldDiff(
            _NAMES[name],
            _text(first, name),
            _text(other, name),
            differs=getattr(first, name) != getattr(other, name),
        )
        for name in (each.name for each in fields(PaymentTerms))
        if name != "operation_id"
    ]


def diff_sources(first: str, other: str) -> list[FieldDiff]:
    """Only where they differ; of most conflicts they don't."""
    return [] if first == other else [FieldDiff(_NAMES["source"], first, other, differs=True)]


def _text(terms: PaymentTerms, name: str) -> str:
    match name:
        case "amount_kopecks":
            return format_rubles(terms.amount_kopecks)
        case "document_date":
            return date_format(terms.document_date, f"{get_format('DATETIME_FORMAT')} e")
    return str(getattr(terms, name))
