"""The pages below docs/ are complete, indexed, and their anchors exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))
GLOSSARY_WORDS_MAX = 45
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of `page`."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_anchor_of_a_page_exists(page: Path) -> None:
    links = re.findall(r"\]\(((?!https?://)[^)#]*)#([^)]+)\)", page.read_text())
    missing = [
        f"{path}#{anchor}"
        for path, anchor in links
        if anchor not in anchors(page.parent / path if path else page)
    ]

    assert missing == []


def test_every_page_and_decision_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"README.md"}

    assert {page for page in pages if f"({page})" not in index} == set()


@pytest.mark.parametrize("record", DECISIONS, ids=name)
def test_every_decision_has_number_status_date_and_what_it_supersedes(record: Path) -> None:
    title, _, status, *_ = record.read_text().split("\n", 3)

    assert title.startswith(f"# {int(record.name[:4])}. ")
    assert re.match(r"Status: (accepted|superseded by \[\d+\]\(.+?\)), \d{4}-\d\d-\d\d[.;]", status)
    assert "Supersedes: " in record.read_text()


def test_glossary_has_few_words_and_each_once() -> None:
    words = re.findall(r"^\| \*\*(.+?)\*\* \|", (DOCS / "glossary.md").read_text(), re.MULTILINE)

    assert len(words) == len(set(words)) <= GLOSSARY_WORDS_MAX


def test_every_command_is_documented() -> None:
    page = (DOCS / "commands.md").read_text()
    commands = {path.stem for path in ROOT.glob("*/management/commands/*.py")} - {"__init__"}
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert {command for command in commands if f"`manage.py {command}`" not in page} == set()
    assert {target for target in targets if f"`make {target}`" not in page} == set()
