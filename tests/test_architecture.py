"""The house rules that a linter can't know. Each says which promise it keeps."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("config", "monitoring", "worker", "ingest", "ledger", "api")
WRITES = {
    *("create", "bulk_create", "get_or_create", "update_or_create", "save", "asave", "acreate"),
    *("update", "bulk_update", "delete", "raw", "_raw_delete"),
}
MONEY = re.compile(r"\b(Payment|BalanceLog|Organization|log_entry|payments)\b")
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
    ),
    *("ingest/models.py", "ingest/schemas.py", "ingest/views.py"),
    *("ingest/banks/events.py", "ingest/banks/tbank.py", "ingest/banks/tochka.py"),
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


@pytest.mark.parametrize(
    "page", sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("**/*.md") if ".venv" not in path.parts)
)
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
    for path in ROOT.glob("**/*.py"):
        if ".venv" not in path.parts:
            assert eager not in path.read_text(), path
