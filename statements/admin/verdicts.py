"""The verdict on an uploaded file or a stored statement, for templates."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

from ledger.money import group_digits
from statements import importing
from statements.admin import finding_texts
from statements.admin.amounts import format_amount, group_account
from statements.importing import Imported, StatementRefused
from statements.models import BankStatement, StatementBalance
from statements.statement_proof import AccountProof, prove

SEVERITIES = {
    BankStatement.Verdict.OK: "ok",
    BankStatement.Verdict.UNPROVEN: "warning",
    BankStatement.Verdict.PARTIAL: "warning",
}
_PROOF_SEVERITIES = {
    StatementBalance.Proof.HOLDS: "ok",
    StatementBalance.Proof.FAILS: "critical",
    StatementBalance.Proof.UNPROVABLE: "warning",
}


@dataclass(frozen=True, slots=True)
class Refused:
    """A file of which nothing is taken: why, in which line, and how to have its account accepted."""

    name: str
    text: str
    line: int | None
    account: str
    add_url: str


def refused(name: str, exc: StatementRefused) -> Refused:
    text, add_url = finding_texts.sentence(exc.code, str(exc)), ""
    if exc.code == importing.NOT_OURS:
        add_url = f"{reverse('admin:statements_ownaccount_add')}?{urlencode({'number': exc.account})}"
    return Refused(name, text, exc.line, group_account(exc.account), add_url)


def imported_context(imported: Imported) -> dict[str, Any]:
    """Return the template's context of a file that was imported, now or before."""
    counts = [
        ngettext("{n} line", "{n} lines", imported.lines).format(n=group_digits(imported.lines)),
        _("{n} of them new").format(n=group_digits(imported.new_lines)),
    ]
    if imported.withdrawn_lines:
        counts.append(_("{n} withdrawn by the bank").format(n=group_digits(imported.withdrawn_lines)))
    return {
        **statement_context(imported.statement),
        "counts": _("imported before, nothing is new") if imported.is_repeated else ", ".join(counts),
    }


def statement_severity(statement: BankStatement) -> str:
    return "ok" if statement.accepted_by_id else SEVERITIES[BankStatement.Verdict(statement.verdict)]


def verdict_label(statement: BankStatement) -> str:
    """Return the verdict, also of one that an operator accepted."""
    label = str(statement.get_verdict_display())
    return _("{verdict}, accepted").format(verdict=label) if statement.accepted_by_id else label


def statement_context(statement: BankStatement) -> dict[str, Any]:
    return {
        "statement": statement,
        "severity": statement_severity(statement),
        "verdict": verdict_label(statement),
        "proofs": [_proof_context(proof) for proof in prove(statement)],
        "errors": finding_texts.sentences(statement.errors),
        "more_errors": statement.unreadable > len(statement.errors),
        "warnings": finding_texts.sentences(statement.warnings),
    }


def _proof_context(proof: AccountProof) -> dict[str, Any]:
    def amount(hundredths: int | None) -> str:
        return format_amount(hundredths, proof.account.number)

    first = min((section.first_day for section in proof.sections if section.first_day), default=None)
    last = max((section.last_day for section in proof.sections if section.last_day), default=None)
    days = {name: day for name, day in (("first", first), ("last", last)) if day}
    query = urlencode({"account": proof.account.pk} | days)
    return {
        "number": group_account(proof.account.number),
        "bank": proof.account.bank,
        "severity": _PROOF_SEVERITIES[proof.proof],
        "result": proof.proof.label,
        "first": first,
        "last": last,
        "terms": [
            ("", _("Opening balance"), amount(proof.opening)),
            ("+", pgettext("money", "Received"), amount(proof.credited)),
            ("−", _("Paid out"), amount(proof.debited)),
            ("=", _("Closing balance"), amount(proof.closing)),
        ],
        "problems": list(_problems(proof, amount)),
        "url": f"{reverse('admin:statements_reconciliation')}?{query}",
    }


def _problems(proof: AccountProof, amount: Any) -> Any:
    """Yield what doesn't add up, with the sums that differ."""
    differs = _("{name}: {said} by the bank’s sums, {found} by the documents.")
    for name, said, found in (
        (pgettext("money", "Received"), proof.credited, proof.documents_in),
        (_("Paid out"), proof.debited, proof.documents_out),
    ):
        if said is not None and said != found:
            yield differs.format(name=name, said=amount(said), found=amount(found))
    if proof.difference:
        text = _(
            "Opening balance and documents don’t come to the closing balance: the difference is {amount}."
        )
        yield text.format(amount=amount(proof.difference))
    for section in proof.breaks:
        text = _("The balance before {day} is not the closing balance of the section before.")
        yield text.format(day=f"{section.first_day:%d.%m.%Y}" if section.first_day else "–")
    if None in {proof.opening, proof.credited, proof.debited, proof.closing}:
        yield _("The file lacks balances or turnovers: nothing proves that all documents are there.")
