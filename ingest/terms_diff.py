"""Two versions of a payment's terms, compared field by field under readable names."""

from dataclasses import dataclass, fields

from django.utils.formats import date_format, get_format
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from ledger.money import format_rubles
from ledger.terms import PaymentTerms

_LABELS: dict[str, str | Promise] = {
    "operation_id": _("operation id"),
    "inn": _("payer INN"),
    "amount_kopecks": _("amount"),
    "document_number": _("document number"),
    "document_date": _("document date"),
    "bank_reference": _("bank's id"),  # not terms, but part of a stored difference
    "source": _("source"),
    "version": _("version"),
    "restoration_unclear": _("state: deleted, then delivered again"),
}


@dataclass(frozen=True)
class FieldDiff:
    label: str | Promise
    first: str
    other: str
    differs: bool


def field_labels(difference: str) -> str:
    """Return a stored difference with readable field names; what is no field stays as it is."""
    return ", ".join(str(_LABELS.get(name, name)) for name in difference.split(", "))


def diff_terms(first: PaymentTerms, other: PaymentTerms) -> list[FieldDiff]:
    """Compare every field but the operation id, which both have in common."""
    return [
        FieldDiff(
            _LABELS[name],
            _text(first, name),
            _text(other, name),
            differs=getattr(first, name) != getattr(other, name),
        )
        for name in (each.name for each in fields(PaymentTerms))
        if name != "operation_id"
    ]


def diff_sources(first: str, other: str) -> list[FieldDiff]:
    """Return a row only if they differ, which is rare."""
    return [] if first == other else [FieldDiff(_LABELS["source"], first, other, differs=True)]


def _text(terms: PaymentTerms, name: str) -> str:
    match name:
        case "amount_kopecks":
            return format_rubles(terms.amount_kopecks)
        case "document_date":
            return date_format(terms.document_date, f"{get_format('DATETIME_FORMAT')} e")
    return str(getattr(terms, name))
