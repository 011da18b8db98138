"""Import bank statements, or print what they say."""

import json
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from ledger.money import format_rubles
from statements.field_values import currency_of
from statements.importing import StatementRefused, add_accounts, import_statement
from statements.matching import match
from statements.proof import AccountProof
from statements.reading import BODY_BYTES_MAX, StatementFile, read
from statements.report import as_json, imported_json

EXIT_CODES = {"ok": 0, "unproven": 1, "partial": 1, "refused": 2}


class Command(BaseCommand):
    help = (
        "Read bank statements in the format 1CClientBankExchange (kl_to_1c.txt), store their lines and match "
        "them with webhooks. Posts nothing. Repeating it changes nothing. With --dry-run, only read them "
        "and print what they say. Exit code, of the worst file: 0 ok, 1 partial or unproven, 2 refused or no "
        "such file."
    )
    requires_system_checks = []  # a dry run needs no database

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", nargs="+", metavar="FILE", type=Path)
        parser.add_argument("--dry-run", action="store_true", help="read and print, store nothing")
        parser.add_argument(
            "--add-accounts",
            action="store_true",
            help="take the files' accounts for ours, and reconcile them from the file's first day on",
        )
        parser.add_argument(
            "--json", action="store_true", help="print one JSON object per file and line; amounts are kopecks"
        )

    def handle(self, *_: Any, **options: Any) -> None:
        show = self._dry_run if options["dry_run"] else self._import
        exit_codes = {0}
        for path in options["files"]:
            try:
                body = _body_of(path)
            except OSError as exc:
                self.stderr.write(f"{path} could not be read: {exc.strerror}")
                exit_codes.add(2)
                continue
            exit_codes.add(show(path, body, options))
        if not options["dry_run"]:
            match()
        if exit_code := max(exit_codes):
            sys.exit(exit_code)

    def _dry_run(self, path: Path, body: bytes, options: dict[str, Any]) -> int:
        file = read(body)
        as_text = json.dumps(as_json(file), ensure_ascii=False) if options["json"] else _as_text(path, file)
        self.stdout.write(as_text)
        return EXIT_CODES[file.verdict]

    def _import(self, path: Path, body: bytes, options: dict[str, Any]) -> int:
        if options["add_accounts"]:
            add_accounts(read(body))
        try:
            imported = import_statement(body, path.name)
        except StatementRefused as exc:
            at_line = "" if exc.line is None else f" in line {exc.line}"
            as_object: dict[str, Any] = {"error": str(exc), "line": exc.line}
            self.stdout.write(
                json.dumps(as_object) if options["json"] else f"{path}: refused{at_line}: {exc}"
            )
            return EXIT_CODES["refused"]
        answer = imported_json(imported)
        self.stdout.write(
            json.dumps(answer, ensure_ascii=False) if options["json"] else _imported_text(path, answer)
        )
        return EXIT_CODES[imported.statement.verdict]


def _body_of(path: Path) -> bytes:
    """Return the bytes of a file, at most one more than a statement may have."""
    with path.open("rb") as stream:
        return stream.read(BODY_BYTES_MAX + 1)


def _imported_text(path: Path, answer: dict[str, Any]) -> str:
    counts = ", ".join(
        f"{answer[name]} {name.removesuffix('_lines').replace('_', ' ')}"
        for name in ("lines", "new_lines", "known_lines", "withdrawn_lines")
    )
    return f"{path}: {answer['verdict']}, {counts}"


def _as_text(path: Path, file: StatementFile) -> str:
    unreadable = [document for document in file.documents if document.errors]
    lines = [f"{path}: {file.verdict}, {len(file.documents)} documents, {len(unreadable)} of them unreadable"]
    lines += [_account_text(account) for account in file.accounts]
    for kind, findings in (("error", file.errors), ("warning", file.warnings)):
        for finding in findings:
            at_line = "" if finding.line is None else f" in line {finding.line}"
            lines.append(f"  {kind}{at_line}: {finding.code}: {finding.reason}")
    for document in unreadable:
        codes = ", ".join(f"{error.code} {error.key or ''}".strip() for error in document.errors)
        lines.append(f"  document {document.index} in line {document.terms.line}: {codes}")
    return "\n".join(lines)


def _account_text(account: AccountProof) -> str:
    opening, credited, debited, closing = (
        "?" if amount is None else format_rubles(amount).removesuffix("\N{NO-BREAK SPACE}₽")
        for amount in (account.opening, account.credited, account.debited, account.closing)
    )
    broken = f" ({', '.join(account.broken)})" if account.broken else ""
    sums = f"opening {opening} + in {credited} − out {debited} = closing {closing}"
    currency = currency_of(account.account) or "unknown currency"
    return f"  {account.account}, {currency}: {sums}: proof {account.proof}{broken}"
