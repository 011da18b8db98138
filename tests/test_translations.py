"""The Russian catalogue holds every string of the pages, and every string of the pages can be held by it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages import Catalog
from django.template.base import Lexer, TokenType

from tests import translations
from tests.english_scan import find_english
from tests.markers import sqlite_run_only
from tests.translations import (
    COMPILED,
    PACKAGES,
    ROOT,
    catalogue_errors,
    compile_catalogue,
    extract_messages,
    read_catalogue,
)

pytestmark = sqlite_run_only

GETTEXT = {
    "_",
    "pgettext",
    *(f"{n}gettext{lazy}" for n in ("", "n") for lazy in ("", "_lazy")),
    "gettext_noop",
}
LABELS = {"description", "help_text", "label", "search_help_text", "verbose_name", "verbose_name_plural"}
API = ("web/openapi.py", "ingest/parsing.py", "ledger/schemas.py")  # for who writes programs
ELSEWHERE = ("blocktranslate", "block bodyclass", "block coltype")  # what is translated, and names of classes
TEMPLATES = sorted(
    str(path.relative_to(ROOT))
    for package in PACKAGES
    for path in (ROOT / package).rglob("templates/**/*.html")
    if path.name != "docs.html"  # of the API, for who writes programs
)


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if not {"migrations", "management"} & set(path.parts):
                yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def is_gettext(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in GETTEXT


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


# --- complete -----------------------------------------------------------------------------------------


def test_every_string_of_the_pages_is_translated() -> None:
    """Red after a new string: `make messages` puts it into config/locale/ru. Translate it, and again."""
    left = catalogue_errors(extract_messages(), read_catalogue())
    assert not left, "\n".join(left)


def test_what_django_reads_is_what_the_catalogue_says() -> None:
    """Red after a change of the .po by hand: `make messages`."""
    assert COMPILED.read_bytes() == compile_catalogue(read_catalogue())


def told(entries: str, tmp_path: Path) -> Catalog:
    """A catalogue with these entries."""
    head = translations.SOURCE.read_text().split("\n\n")[0]
    file = tmp_path / "django.po"
    file.write_text(f"{head}\n\n{entries}")
    return read_catalogue(file)


@pytest.mark.parametrize(
    ("entries", "fault"),
    [
        ("", "missing: (None, '{n} rows')"),
        ('msgid "{n} rows"\nmsgstr ""', "not translated: (None, '{n} rows')"),
        ('#, fuzzy\nmsgid "{n} rows"\nmsgstr "строк: {n}"', "fuzzy: (None, '{n} rows')"),
        ('msgid "{n} rows"\nmsgstr "строк: {m}"', "other placeholders: (None, '{n} rows')"),
        ('msgid "{n} rows"\nmsgstr "строк: {n}"\n\n#~ msgid "old"\n#~ msgstr "старое"', "obsolete: old"),
        (
            'msgid "{n} rows"\nmsgstr "строк: {n}"\n\nmsgid "old"\nmsgstr "старое"',
            "not in the code any more: (None, 'old')",
        ),
        ('msgid "{n} rows"\nmsgstr "строк: {n}"', ""),
    ],
)
def test_a_gap_in_the_catalogue_is_named(entries: str, fault: str, tmp_path: Path) -> None:
    code = Catalog()
    code.add("{n} rows")

    assert catalogue_errors(code, told(entries, tmp_path)) == ([fault] if fault else [])


def test_a_plural_needs_all_its_forms(tmp_path: Path) -> None:
    code = Catalog()
    code.add(("{n} row", "{n} rows"))
    entry = (
        'msgid "{n} row"\nmsgid_plural "{n} rows"\nmsgstr[0] "{n} строка"\nmsgstr[1] "{n} строки"\nmsgstr[2] '
    )

    assert catalogue_errors(code, told(entry + '""', tmp_path)) == [
        "not translated: (None, ('{n} row', '{n} rows'))"
    ]
    assert catalogue_errors(code, told(entry + '"{n} строк"', tmp_path)) == []


def test_strings_are_collected_from_code_and_from_templates(tmp_path: Path) -> None:
    (tmp_path / "ledger/templates").mkdir(parents=True)
    (tmp_path / "ledger/admin/pages.py").write_text(
        'A = gettext_lazy("one " "two")\nB = ngettext("a", "b", 2)\n'
    )
    plural = "{% blocktranslate count n=n %}{{ n }} row{% plural %}{{ n }} rows{% endblocktranslate %}"
    (tmp_path / "ledger/templates/page.html").write_text(f'  {{% translate "three" %}}\n {plural}')

    ids = {message.id for message in extract_messages(tmp_path) if message.id}

    assert ids == {"one two", ("a", "b"), "three", ("%(n)s row", "%(n)s rows")}


# --- can be held by it --------------------------------------------------------------------------------


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_says_nothing_but_through_gettext(template: str) -> None:
    assert find_english(untranslated((ROOT / template).read_text())) == []


def untranslated(source: str) -> str:
    """The template without what its tags and variables would say, and without what is translated."""
    texts, inside = [], False
    for token in Lexer(source).tokenize():
        if token.token_type is TokenType.BLOCK and token.contents.startswith(ELSEWHERE):
            inside = True
        elif token.token_type is TokenType.BLOCK and token.contents.startswith("end"):
            inside = False
        elif token.token_type is TokenType.TEXT and not inside:
            texts.append(token.contents)
    return "".join(texts)


def test_text_of_a_template_beside_its_tags_is_found() -> None:
    page = 'Some <b title="{{ x }}">{% blocktranslate %}things{% endblocktranslate %}</b> fail'

    assert find_english(untranslated(page)) == ["Some", "fail"]


def test_a_string_is_told_to_gettext_whole_and_where_it_can_be_seen() -> None:
    """What stands in a variable, or inside an f-string, can't be collected."""
    unseen = []
    for path, tree in modules():
        if path == "backoffice/otp.py":  # marks the words of another package, which it lists
            continue
        calls = [node for node in ast.walk(tree) if is_gettext(node)]
        unseen += [f"{path}: {ast.unparse(call)}" for call in calls if not is_text(call.args[0])]  # type: ignore[attr-defined]
        strings = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
        inside = [node for string in strings for node in ast.walk(string) if is_gettext(node)]
        unseen += [f"{path}: {ast.unparse(call)}" for call in inside]
    assert not unseen, "\n".join(unseen)


def test_a_label_in_the_code_is_told_to_gettext() -> None:
    plain = []
    for path, tree in modules():
        if path in API:
            continue
        for node in ast.walk(tree):
            named = [(node.arg, node.value)] if isinstance(node, ast.keyword) else []
            if isinstance(node, ast.Assign):
                named = [(getattr(target, "id", None), node.value) for target in node.targets]
            for name, value in named:
                if (
                    name in LABELS
                    and isinstance(value, ast.Constant | ast.JoinedStr)
                    and ast.unparse(value) != "''"
                ):
                    plain.append(f"{path}: {name}={ast.unparse(value)}")
    assert not plain, "\n".join(plain)
