"""README.md and README.ru.md agree in everything that a reader copies, looks up or clicks."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ENGLISH, RUSSIAN = ROOT / "README.md", ROOT / "README.ru.md"
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"""(?:\]\(|src="|srcset=")([^)#"]+)""")


def prose(page: Path) -> str:
    """Return the page without code blocks, in which # begins a comment."""
    return FENCED.sub("", page.read_text())


def levels(page: Path) -> list[str]:
    return re.findall(r"^(#+) ", prose(page), re.MULTILINE)


def links(page: Path) -> list[str]:
    return [link for link in LINK.findall(prose(page)) if not link.startswith(("http://", "https://"))]


def figures(page: Path) -> list[str]:
    """Return the cells of each row of the benchmark's table, without its label."""
    section = page.read_text().partition("<!-- figures")[2].partition("<!-- end")[0]
    return [row.partition(" | ")[2] for row in section.splitlines()[2:] if row.startswith("| ")]


def test_both_have_the_same_code_blocks_in_the_same_order() -> None:
    assert FENCED.findall(RUSSIAN.read_text()) == FENCED.findall(ENGLISH.read_text())


def test_both_have_the_same_headings_by_their_levels() -> None:
    assert levels(RUSSIAN) == levels(ENGLISH)


def test_both_have_the_same_links_but_for_language() -> None:
    english = {link.replace("/en/", "/ru/") for link in links(ENGLISH)} - {RUSSIAN.name}

    assert set(links(RUSSIAN)) - {ENGLISH.name} == english


def test_both_show_the_same_six_figures() -> None:
    assert figures(RUSSIAN)[1:] == figures(ENGLISH)[1:]
    assert len(figures(ENGLISH)) == 1 + 6


@pytest.mark.parametrize("page", [ENGLISH, RUSSIAN], ids=lambda page: page.name)
def test_every_link_and_picture_leads_to_a_file(page: Path) -> None:
    assert [link for link in links(page) if not (ROOT / link).exists()] == []


def test_each_leads_to_the_other_before_its_first_section() -> None:
    for page, other in ((ENGLISH, RUSSIAN), (RUSSIAN, ENGLISH)):
        assert f"({other.name})" in page.read_text().partition("\n## ")[0]
