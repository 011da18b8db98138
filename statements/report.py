"""A statement as JSON, in the shape of docs/statements.md."""

from typing import Any

from statements.document_terms import Side
from statements.documents import Document
from statements.field_values import currency_of
from statements.findings import Finding
from statements.importing import Imported
from statements.proof import AccountProof, Section
from statements.reading import Header, StatementFile

Json = dict[str, Any]


def as_json(file: StatementFile) -> Json:
    """Return `file` as values of JSON; dates are ISO 8601."""
    return {
        "encoding": file.encoding,
        "verdict": file.verdict,
        "errors": [_finding(error) for error in file.errors],
        "warnings": [_finding(warning) for warning in file.warnings],
        "declared_encoding": file.header.declared_encoding,
        "format_version": file.header.format_version,
        "header": _header(file.header),
        "accounts": [_account(account) for account in file.accounts],
        "documents": [_document(document) for document in file.documents],
    }


def imported_json(imported: Imported) -> Json:
    """Return the answer to an import as values of JSON."""
    return {
        "id": imported.statement.pk,
        "verdict": imported.statement.verdict,
        "warnings": imported.statement.warnings,
        "accounts": [
            {
                "account": balance.account.number,
                "opening": balance.opening,
                "in": balance.credited,
                "out": balance.debited,
                "closing": balance.closing,
                "proof": balance.proof,
            }
            for balance in imported.statement.balances.select_related("account").order_by("pk")
        ],
        "lines": imported.lines,
        "new_lines": imported.new_lines,
        "known_lines": imported.known_lines,
        "withdrawn_lines": imported.withdrawn_lines,
    }


def _finding(finding: Finding) -> Json:
    return {"code": finding.code, "line": finding.line, "reason": finding.reason}


def _header(header: Header) -> Json:
    return {
        "sender": header.sender,
        "created": header.created,
        "from": _iso(header.first_day),
        "to": _iso(header.last_day),
        "accounts": list(header.accounts),
    }


def _account(account: AccountProof) -> Json:
    return {
        "account": account.account,
        "currency": currency_of(account.account),
        "opening_kopecks": account.opening,
        "in_kopecks": account.credited,
        "out_kopecks": account.debited,
        "closing_kopecks": account.closing,
        "documents_in_kopecks": account.documents_credited,
        "documents_out_kopecks": account.documents_debited,
        "proof": account.proof,
        "proof_checks": account.checks,
        "proof_broken": account.broken,
        "sections": [_section(section) for section in account.sections],
    }


def _section(section: Section) -> Json:
    return {
        "from": _iso(section.first_day),
        "to": _iso(section.last_day),
        "opening_kopecks": section.opening,
        "in_kopecks": section.credited,
        "out_kopecks": section.debited,
        "closing_kopecks": section.closing,
    }


def _document(document: Document) -> Json:
    terms = document.terms
    return {
        "index": document.index,
        "line": terms.line,
        "kind": terms.kind,
        "number": terms.number,
        "date": _iso(terms.date),
        "booked_on": _iso(document.booked_on),
        "amount_kopecks": None if terms.amount is None else abs(terms.amount),
        "reversal": terms.amount is not None and terms.amount < 0,
        "direction": document.direction,
        "effects_kopecks": _effects(document),
        "payer": _side(terms.payer, document.payer_account),
        "payee": _side(terms.payee, document.payee_account),
        "purpose": terms.purpose,
        "uin": terms.uin,
        "errors": [{"code": error.code, "key": error.key} for error in document.errors],
        "payer_inn_checksum_holds": document.payer_inn_checksum_holds,
        "payer_is_owner": document.payer_is_owner,
        "creditable": document.not_creditable is None,
        "not_creditable": document.not_creditable,
        **({"payer_inn_from": terms.payer.inn_from} if terms.payer.inn_from else {}),
        **({} if document.may_reverse is None else {"looks_like_reversal_of": document.may_reverse}),
    }


def _effects(document: Document) -> dict[str, int]:
    """Return what the document adds to the balance of each account."""
    effects: dict[str, int] = {}
    for movement in document.movements:
        change = movement.kopecks if movement.is_credit else -movement.kopecks
        effects[movement.account] = effects.get(movement.account, 0) + change
    return effects


def _side(side: Side, account: str | None) -> Json:
    return {"inn": side.inn, "kpp": side.kpp, "account": account}


def _iso(day: object | None) -> str | None:
    return None if day is None else str(day)
