"""Rules of this project that a linter cannot know. Each test names the promise it keeps."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Every package of the product, from top to bottom, and its modules. A new module belongs where the package's
# line in the README says what lives there; then it is added here.
MODULES = {
    "config": "asgi broker celery_settings components env gunicorn settings urls wsgi",
    "devtools": "preflight run supervisor",
    "devtools/simulator": "client sender verifier workload",
    "web": (
        "buffered_bodies health host_check notice_page openapi password_limit request_id security "
        "uvicorn_worker webhook_application"
    ),
    "backoffice": "apps locale login middleware otp sections site users",
    "monitoring": (
        "admin alerts apps charts cluster dashboard doctor format_duration models notifications problem "
        "problems prometheus reconciliation_problems stats tasks throughput"
    ),
    "statements": (
        "actions append_only apps blocks bucketing buckets coverage covered_days day_totals decoding "
        "document_terms documents export_1c field_values findings importing keys line_posting lines listing "
        "match_sql matching models pairing period_proof posting_conditions proof reading rejecting report "
        "retention schemas settling standing statement_proof suspects tasks upload_view webhook_terms "
        "withdrawal"
    ),
    "statements/admin": (
        "acceptance action_items amounts bank_statements bucket_buttons bucket_texts coverage_calendar "
        "export_download finding_texts line_rows "
        "own_accounts period_form reconciliation_page rejected_statements settling_page statement_lines "
        "titled_admin upload verdicts"
    ),
    "worker": (
        "admin amqp_transport applying apps batch_markers beat_scheduler beat_shutdown celery claiming "
        "consumer duplicate_detection file_broker heartbeats merging metrics models nightly_verification "
        "redis_transport retention retries sweeper tasks trial_posting"
    ),
    "ingest": (
        "action_handlers action_progress append_only apps arrivals authentication batch body_verification "
        "checks command_line confirmation correction_actions correction_audit delivery_records doorbell "
        "error_fingerprint exceptions field_rules group_commit inbox metrics misconfiguration models "
        "number_keys operator_actions parsing payment_fingerprint reconciliation replay schemas signatures "
        "suspected_duplicates terms_diff unrecognized verification version_corrections version_storage "
        "version_verification versions views"
    ),
    "ingest/admin": (
        "action_views body_rendering correction_previews deliveries delivery_bodies failures "
        "operator_actions pair_previews search suspected_duplicates suspense timeline unrecognized "
        "verifications versions webhooks"
    ),
    "ingest/banks": "events json_fields registry sber tbank tochka vocabulary",
    "ledger": (
        "apps checks corrections download_slot exceptions inn models money operation_id posting queries "
        "schemas statement statement_csv statement_xlsx suspense terms triggers verification views"
    ),
    "ledger/admin": "balance_chart organization_page pages",
    "api": "admin apps authentication checks keys models throttling",
    "core": (
        "admin admin_lookups apps best_effort cli client_ip days delivery_auth groups http iso8601 "
        "listen_address log_throttle period_form svg"
    ),
    "core/db": "clock insert_rows insert_select lookups pk_by_time snapshot transactions",
    "core/db/mysql_backend": "base hosts",
    "core/db/sqlite_backend": "base",
    "core/observability": "logging prometheus_multiprocess redaction sentry setup tracing",
}
PACKAGES = tuple(package for package in MODULES if "/" not in package)
README_LINES_MAX = 150
# Words of a private dialect, each with the term to use instead. Identifiers are split into their words.
BANNED = {
    "told": "the value's own name: payments, stats, event, fields",
    "whoever": "the subject: the caller, the process, the operator",
    "whatever": "the thing itself, or “any”",
    "somebody": "the subject: a person, another process",
    "nobody": "“no one”, “no process”, or the passive",
    "everybody": "“anyone”, “all users”",
    "house": "system, stack",
    "doorkeeper": "authentication",
    "door": "endpoint",
    "doors": "endpoints",
    "trouble": "problem",
    "troubles": "problems",
    "in vain": "failed, unsuccessful",
    "let go of": "delete",
    "taken apart": "split",
}
_BANNED = re.compile(rf"\b({'|'.join(BANNED)})\b")
_NOT_OURS = ("requirements/", "tests/statements/corpus/", "tests/test_architecture.py")
WRITES = {
    *("create", "bulk_create", "get_or_create", "update_or_create", "save", "asave", "acreate"),
    *("update", "bulk_update", "delete", "raw", "_raw_delete"),
}
MONEY = re.compile(r"\b(Payment|BalanceLog|Replacement|Organization|log_entry|payments)\b")
MONEY_IN_SQL = re.compile(r"\b(INSERT|UPDATE|DELETE|REPLACE)\b[^;]*\bledger_", re.IGNORECASE)


def sources(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    """Each module of ours below `folders`, by its path from the root; migrations left out."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "migrations" not in path.parts:
                yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def calls(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(what it is called on, name) of each method call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield ast.unparse(node.func.value), node.func.attr


def texts(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_ledger_posting_is_the_only_writer_of_money() -> None:
    writers = set()
    for path, tree in sources(*PACKAGES):
        if any(name in WRITES and MONEY.search(target) for target, name in calls(tree)):
            writers.add(path)
        if any(MONEY_IN_SQL.search(text) for text in texts(tree)):
            writers.add(path)

    assert writers == {"ledger/posting.py"}


MONEY_MODULES = [
    *("ledger/money.py", "ledger/terms.py", "ledger/models.py", "ledger/posting.py", "ledger/queries.py"),
    *(
        "ledger/schemas.py",
        "ledger/views.py",
        "ingest/parsing.py",
        "ingest/field_rules.py",
        "ingest/inbox.py",
        "ingest/batch.py",
    ),
    *("ingest/versions.py", "ingest/version_storage.py"),
    *("ingest/models.py", "ingest/schemas.py", "ingest/views.py"),
    *("ingest/banks/events.py", "ingest/banks/tbank.py", "ingest/banks/tochka.py"),
    *("statements/field_values.py", "statements/document_terms.py", "statements/documents.py"),
    *("statements/proof.py", "statements/report.py", "statements/models.py", "statements/lines.py"),
    *("statements/buckets.py", "statements/bucketing.py", "statements/matching.py"),
    *(
        "statements/line_posting.py",
        "statements/posting_conditions.py",
        "statements/export_1c.py",
        "statements/standing.py",
        "statements/settling.py",
        "worker/merging.py",
    ),
    *("statements/period_proof.py", "statements/statement_proof.py", "statements/day_totals.py"),
    *("statements/admin/amounts.py", "statements/admin/reconciliation_page.py"),
]


@pytest.mark.parametrize("path", MONEY_MODULES)
def test_no_float_touches_money(path: str) -> None:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), ast.unparse(node)
        assert not (isinstance(node, ast.Name) and node.id == "float"), f"float in line {node.lineno}"
        assert not (isinstance(node, ast.Div)), "true division makes a float"
        assert not (isinstance(node, ast.Attribute) and node.attr in {"FloatField", "DecimalField"})


def test_in_the_request_only_the_doorbell_knows_the_broker() -> None:
    knowing = set()
    for path, tree in sources("ingest", "ledger", "api"):
        for node in ast.walk(tree):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(module.split(".")[0] in {"celery", "kombu", "redis"} for module in modules):
                knowing.add(path)

    assert knowing == {"ingest/doorbell.py"}


def test_only_settings_and_the_launcher_read_the_environment() -> None:
    readers = {
        path
        for path, tree in sources(*PACKAGES)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ.get", "os.getenv", "env.str"}
    }
    # gunicorn's main process loads no settings.
    assert readers <= {"config/settings.py", "devtools/run.py", "config/gunicorn.py"}


def test_settings_stay_one_page_a_person_reads() -> None:
    assert len((ROOT / "config/settings.py").read_text().splitlines()) <= 200


def test_every_variable_is_in_the_example_environment_and_nothing_else() -> None:
    settings = (ROOT / "config/settings.py").read_text()
    procfile = (ROOT / "Procfile").read_text()
    read = set(re.findall(r"""(?:env\.\w+|required_in_production)\(\s*"([A-Z_]+)\"""", settings))
    read |= set(re.findall(r"\$\{([A-Z_]+)", procfile))
    documented = set(re.findall(r"^#? ?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))

    assert read == documented


def files(name: str) -> Iterator[Path]:
    """Yield the files of this name in and below the root; hidden folders such as .venv left out."""
    yield from ROOT.glob(name)
    for folder in sorted(ROOT.glob("[!.]*/")):
        yield from folder.rglob(name)


@pytest.mark.parametrize("page", sorted(str(path.relative_to(ROOT)) for path in files("*.md")))
def test_every_path_and_link_in_the_docs_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text)
    paths = re.findall(rf"`((?:{'|'.join(PACKAGES)}|tests|docs|deploy|bench)/[\w./-]*\w)`", text)
    for link in links:
        if not link.startswith(("http://", "https://")):
            assert (ROOT / page).parent.joinpath(link).exists(), link
    for path in paths:
        assert (ROOT / path).exists(), path


def test_no_test_of_delivery_runs_celery_eagerly() -> None:
    eager = "always_" + "eager"
    for path in files("*.py"):
        assert eager not in path.read_text(), path


def module_names(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("package", MODULES)
def test_each_module_is_in_the_tree(package: str) -> None:
    assert module_names(ROOT / package) == set(MODULES[package].split())


def test_no_top_level_package_is_outside_the_tree() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}

    assert packages == {*PACKAGES, "tests", "bench", "faults"}


def test_no_package_is_outside_the_tree() -> None:
    without_list = {"management", "migrations", "formats"}
    packages = {
        str(path.parent.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")
    }

    assert {path for path in packages if not without_list & set(Path(path).parts)} == set(MODULES)


@pytest.mark.parametrize("page", ["README.md", "README.ru.md"])
def test_readme_fits_its_limit(page: str) -> None:
    assert len((ROOT / page).read_text().splitlines()) <= README_LINES_MAX


def test_readme_has_a_line_for_each_package() -> None:
    readme = (ROOT / "README.md").read_text()

    assert [package for package in PACKAGES if not re.search(rf"^{package}/ +\S", readme, re.MULTILINE)] == []


def banned_words(text: str) -> set[str]:
    """Return the banned words in `text`; snake_case and CamelCase are read as separate words."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_|\s+", " ", text).lower()
    return set(_BANNED.findall(words))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("told_at = None", "told"),
        ("class HouseFailed(Exception): ...", "house"),
        ('"""Lock it for whoever\ncomes next."""', "whoever"),
        ("The rows are let\n go of after a day.", "let go of"),
        ("DOORS_BY_NAME", "doors"),
    ],
)
def test_planted_banned_word_is_found(text: str, word: str) -> None:
    assert banned_words(text) == {word}


def test_doorbell_is_not_banned() -> None:
    assert banned_words("ingest/doorbell.py rings; class Doorbell; storehouse") == set()


def text_files() -> list[str]:
    """Return the paths of the project's text files, as git knows them."""
    listed = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    ).splitlines()
    binary = {".png", ".mo", ".svg", ".json", ".sum"}
    return [path for path in listed if Path(path).suffix not in binary and (ROOT / path).is_file()]


def test_no_banned_word_in_code_docs_or_messages() -> None:
    found = [
        f"{path}: “{word}”, say instead: {BANNED[word]}"
        for path in text_files()
        if not path.startswith(_NOT_OURS)
        for word in sorted(banned_words((ROOT / path).read_text()))
    ]

    assert not found, "\n".join(found)
