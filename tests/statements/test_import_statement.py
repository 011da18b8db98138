"""`manage.py import_statement`: what it stores and prints, and its exit codes."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from statements.models import BankStatement, Bucket, StatementLine
from statements.reading import read
from statements.report import as_json
from tests.statements.files import OWN, document, section, statement

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


# --- import -------------------------------------------------------------------------------------------


@pytest.fixture
def two_lines(tmp_path: Path) -> Path:
    sums = {"ВсегоПоступило": "20.00", "КонечныйОстаток": "20.00"}
    file = tmp_path / "kl_to_1c.txt"
    file.write_text(
        statement(section(**sums), document(Номер="1"), document(Номер="2")), "cp1251", newline=""
    )
    return file


@pytest.mark.django_db
def test_imported_lines_are_matched_and_a_repetition_changes_nothing(two_lines: Path) -> None:
    exit_code, out, _ = run("--add-accounts", two_lines)
    assert (exit_code, out) == (0, f"{two_lines}: ok, 2 lines, 2 new, 0 known, 0 withdrawn\n")
    buckets = StatementLine.objects.values_list("bucket", flat=True)
    assert list(buckets) == [Bucket.MISSING_WEBHOOK] * 2

    exit_code, out, _ = run("--json", two_lines, two_lines)

    assert exit_code == 0
    for answer in map(json.loads, out.splitlines()):
        assert (answer["id"], answer["lines"], answer["new_lines"]) == (BankStatement.objects.get().pk, 2, 0)
        [proof] = answer["accounts"]
        assert (proof["account"], proof["opening"], proof["in"], proof["closing"]) == (OWN, 0, 20_00, 20_00)
    assert StatementLine.objects.count() == 2


@pytest.mark.django_db
def test_refused_file_is_named_with_its_line_and_the_others_are_imported(two_lines: Path) -> None:
    exit_code, out, _ = run(two_lines)
    assert (exit_code, out) == (2, f"{two_lines}: refused: account {OWN} is not one of ours\n")

    exit_code, out, _ = run("--add-accounts", REFUSED, two_lines)
    assert exit_code == 2
    assert f"{REFUSED}: refused in line 54: truncated" in out
    assert [each.name for each in BankStatement.objects.all()] == [two_lines.name]
    refusal = json.loads(run("--json", REFUSED)[1])
    assert (refusal["line"], refusal["error"][:9]) == (54, "truncated")


@pytest.mark.django_db
def test_dry_run_stores_nothing(two_lines: Path) -> None:
    assert run("--dry-run", "--add-accounts", two_lines)[0] == 0

    assert not BankStatement.objects.exists()


@pytest.mark.django_db
def test_unproven_file_is_stored_and_exits_1(two_lines: Path) -> None:
    two_lines.write_bytes(two_lines.read_bytes().replace(b"=20.00", b"=30.00", 1))

    exit_code, out, _ = run("--add-accounts", two_lines)

    assert (exit_code, out) == (1, f"{two_lines}: unproven, 2 lines, 2 new, 0 known, 0 withdrawn\n")
