"""The Russian catalogue is complete, and every string of the pages is marked for translation."""

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
API = (  # for API clients
    *("web/openapi.py", "ingest/parsing.py", "ledger/schemas.py", "statements/schemas.py"),
)
SKIPPED_BLOCKS = (
    "blocktranslate",
    "block bodyclass",
    "block coltype",
)  # translated text, and CSS class names
TEMPLATES = sorted(
    str(path.relative_to(ROOT))
    for package in PACKAGES
    for path in (ROOT / package).rglob("templates/**/*.html")
    if path.name != "docs.html"  # the API's documentation, for API clients
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


# Completeness


def test_every_message_is_translated() -> None:
    """Fails after a new string: run `make messages`, translate it in config/locale/ru, run `make messages`
    again.
    """
    problems = catalogue_errors(extract_messages(), read_catalogue())
    assert not problems, "\n".join(problems)


def test_mo_file_matches_the_po_file() -> None:
    """Fails after a manual change of the .po file: run `make messages`."""
    assert COMPILED.read_bytes() == compile_catalogue(read_catalogue())


def catalogue_of(entries: str, tmp_path: Path) -> Catalog:
    """Return a catalogue with these entries."""
    head = translations.SOURCE.read_text().split("\n\n")[0]
    file = tmp_path / "django.po"
    file.write_text(f"{head}\n\n{entries}")
    return read_catalogue(file)


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ("", "missing: (None, '{n} rows')"),
        ('msgid "{n} rows"\nmsgstr ""', "not translated: (None, '{n} rows')"),
        ('#, fuzzy\nmsgid "{n} rows"\nmsgstr "строк: {n}"', "fuzzy: (None, '{n} rows')"),
        ('msgid "{n} rows"\nmsgstr "строк: {m}"', "other placeholders: (None, '{n} rows')"),
        ('msgid "{n} rows"\nmsgstr "строк: {n}"\n\n#~ msgid "old"\n#~ msgstr "старое"', "obsolete: old"),
        (
            'msgid "{n} rows"\nmsgstr "строк: {n}"\n\nmsgid "old"\nmsgstr "старое"',
            "no longer in the code: (None, 'old')",
        ),
        ('msgid "{n} rows"\nmsgstr "строк: {n}"', ""),
    ],
)
def test_incomplete_catalogue_is_reported(entries: str, problem: str, tmp_path: Path) -> None:
    code = Catalog()
    code.add("{n} rows")

    assert catalogue_errors(code, catalogue_of(entries, tmp_path)) == ([problem] if problem else [])


def test_plural_without_all_forms_is_reported(tmp_path: Path) -> None:
    code = Catalog()
    code.add(("{n} row", "{n} rows"))
    entry = (
        'msgid "{n} row"\nmsgid_plural "{n} rows"\nmsgstr[0] "{n} строка"\nmsgstr[1] "{n} строки"\nmsgstr[2] '
    )

    assert catalogue_errors(code, catalogue_of(entry + '""', tmp_path)) == [
        "not translated: (None, ('{n} row', '{n} rows'))"
    ]
    assert catalogue_errors(code, catalogue_of(entry + '"{n} строк"', tmp_path)) == []


def test_messages_are_extracted_from_code_and_templates(tmp_path: Path) -> None:
    (tmp_path / "ledger/templates").mkdir(parents=True)
    (tmp_path / "ledger/views.py").write_text('A = gettext_lazy("one " "two")\nB = ngettext("a", "b", 2)\n')
    plural = "{% blocktranslate count n=n %}{{ n }} row{% plural %}{{ n }} rows{% endblocktranslate %}"
    (tmp_path / "ledger/templates/page.html").write_text(f'  {{% translate "three" %}}\n {plural}')

    ids = {message.id for message in extract_messages(tmp_path) if message.id}

    assert ids == {"one two", ("a", "b"), "three", ("%(n)s row", "%(n)s rows")}


# Extractability


@pytest.mark.parametrize("template", TEMPLATES)
def test_template_has_no_text_outside_gettext(template: str) -> None:
    assert find_english(untranslated((ROOT / template).read_text())) == []


def untranslated(source: str) -> str:
    """Return the template's text outside tags, variables and translated blocks."""
    texts, inside = [], False
    for token in Lexer(source).tokenize():
        if token.token_type is TokenType.BLOCK and token.contents.startswith(SKIPPED_BLOCKS):
            inside = True
        elif token.token_type is TokenType.BLOCK and token.contents.startswith("end"):
            inside = False
        elif token.token_type is TokenType.TEXT and not inside:
            texts.append(token.contents)
    return "".join(texts)


def test_template_text_outside_tags_is_detected() -> None:
    page = 'Some <b title="{{ x }}">{% blocktranslate %}things{% endblocktranslate %}</b> fail'

    assert find_english(untranslated(page)) == ["Some", "fail"]


def test_gettext_calls_are_extractable() -> None:
    """A variable or a call inside an f-string can't be extracted."""
    unseen = []
    for path, tree in modules():
        if path == "backoffice/otp.py":  # lists the messages of another package
            continue
        calls = [node for node in ast.walk(tree) if is_gettext(node)]
        unseen += [f"{path}: {ast.unparse(call)}" for call in calls if not is_text(call.args[0])]  # type: ignore[attr-defined]
        strings = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
        inside = [node for string in strings for node in ast.walk(string) if is_gettext(node)]
        unseen += [f"{path}: {ast.unparse(call)}" for call in inside]
    assert not unseen, "\n".join(unseen)


def test_labels_are_marked_for_translation() -> None:
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
