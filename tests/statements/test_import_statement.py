"""`manage.py import_statement --dry-run`: what it prints, and its exit codes."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from statements.reading import read
from statements.report import as_json

CORPUS = Path(__file__).parent / "corpus"
OK = CORPUS / "01-vtb-full-keys.txt"
UNPROVEN = CORPUS / "37-proof-fails-one-sum-changed.txt"
PARTIAL = CORPUS / "49-bad-sums.txt"
REFUSED = CORPUS / "40-cut-off-in-a-document.txt"


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr."""
    out, err = StringIO(), StringIO()
    exit_code: str | int | None = 0
    try:
        call_command("import_statement", *map(str, arguments), stdout=out, stderr=err)
    except SystemExit as exc:
        exit_code = exc.code
    return int(exit_code or 0), out.getvalue(), err.getvalue()


@pytest.mark.parametrize(
    ("files", "exit_code"),
    [
        *(([OK], 0), ([OK, OK], 0), ([UNPROVEN], 1), ([PARTIAL], 1), ([REFUSED], 2)),
        *(([OK, PARTIAL, OK], 1), ([REFUSED, PARTIAL, OK], 2)),
    ],
)
def test_exit_code_is_the_worst_verdicts(files: list[Path], exit_code: int) -> None:
    assert run("--dry-run", "--json", *files)[0] == exit_code
    assert run("--dry-run", *files)[0] == exit_code


def test_json_has_one_object_per_file_and_line() -> None:
    _, out, _ = run("--dry-run", "--json", OK, REFUSED)

    assert [json.loads(line) for line in out.splitlines()] == [
        as_json(read(path.read_bytes())) for path in (OK, REFUSED)
    ]


def test_file_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    exit_code, out, err = run("--dry-run", "--json", tmp_path / "missing.txt", tmp_path, OK)

    assert exit_code == 2
    assert [json.loads(line)["verdict"] for line in out.splitlines()] == ["ok"]
    assert len(err.splitlines()) == 2


def test_text_names_proof_errors_and_unreadable_documents() -> None:
    _, out, _ = run("--dry-run", REFUSED)

    assert "refused, 2 documents, 1 of them unreadable" in out
    assert "opening 0,00 + in 30,00 − out 0,00 = closing 30,00: proof fails (balances, credits)" in out
    assert "error in line 54: truncated" in out
    assert "document 2 in line 51: unclosed" in out
