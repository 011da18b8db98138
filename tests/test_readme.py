"""The Russian README says what the English one does: what a reader copies, looks up or clicks is the same."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ENGLISH, RUSSIAN = ROOT / "README.md", ROOT / "README.ru.md"
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
FIGURES = re.compile(r"<!-- figures.*<!-- end of figures -->", re.DOTALL)
LINK = re.compile(r"""(?:\]\(|src="|srcset=")([^)#"]+)""")


def prose(page: Path) -> str:
    """The page without code blocks, where # begins a comment, and figures, which only the English one has."""
    return FENCED.sub("", FIGURES.sub("", page.read_text()))


def first_cells(page: Path) -> list[str]:
    """What the rows of commands and variables begin with; other tables begin with prose."""
    return re.findall(r"^\| (`.+?) \|", prose(page), re.MULTILINE)


def levels(page: Path) -> list[str]:
    return re.findall(r"^(#+) ", prose(page), re.MULTILINE)


def links(page: Path) -> list[str]:
    return [link for link in LINK.findall(prose(page)) if not link.startswith(("http://", "https://"))]


def test_both_have_the_same_code_blocks_in_the_same_order() -> None:
    assert FENCED.findall(RUSSIAN.read_text()) == FENCED.findall(ENGLISH.read_text())


def test_both_have_the_same_commands_and_variables() -> None:
    assert first_cells(RUSSIAN) == first_cells(ENGLISH)


def test_both_have_the_same_headings_by_their_levels() -> None:
    assert levels(RUSSIAN) == levels(ENGLISH)


@pytest.mark.parametrize("page", [ENGLISH, RUSSIAN], ids=lambda page: page.name)
def test_every_link_and_picture_leads_to_a_file(page: Path) -> None:
    assert [link for link in links(page) if not (ROOT / link).exists()] == []


def test_each_leads_to_the_other_before_its_first_section() -> None:
    for page, other in ((ENGLISH, RUSSIAN), (RUSSIAN, ENGLISH)):
        assert f"({other.name})" in page.read_text().partition("\n## ")[0]
