"""Extract the messages of the pages and update the Russian catalogue.

`make messages` updates both files without GNU gettext: the .po, where new messages wait for a translation,
and the .mo, which Django reads. Both are committed, so that a fresh clone speaks Russian; a test compares
them.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from babel.messages import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract, extract_python
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    *("config", "devtools", "web", "backoffice", "monitoring", "statements"),
    *("worker", "ingest", "ledger", "api", "core"),
)
SOURCE = ROOT / "config/locale/ru/LC_MESSAGES/django.po"
COMPILED = SOURCE.with_suffix(".mo")
KEYWORDS = DEFAULT_KEYWORDS | {"gettext_noop": None}
KEYWORDS |= {
    f"{name}_lazy": DEFAULT_KEYWORDS[name] for name in ("gettext", "ngettext", "pgettext", "npgettext")
}
_PLACEHOLDER = re.compile(r"%\(\w+\)[a-z]|\{\w*\}")

Id = str | tuple[str, str]  # (singular, plural) for a plural


def _extract_template(file: Any, keywords: Any, tags: Any, options: Any) -> Iterator[Any]:
    """Extract messages from a Django template, which `templatize` turns into gettext calls.

    The parentheses make their indentation irrelevant.
    """
    calls = f"(\n{templatize(file.read().decode())}\n)"
    return extract_python(BytesIO(calls.encode()), keywords, tags, options)


def extract_messages(root: Path = ROOT) -> Catalog:
    """Return every message marked for translation in the code below `root`."""
    found = Catalog()
    for path in sorted(file for package in PACKAGES for file in (root / package).rglob("*")):
        method = {".py": "python", ".html": _extract_template}.get(path.suffix)
        if method is None or "migrations" in path.parts:
            continue
        with path.open("rb") as file:
            for _, message_id, _, context in extract(method, file, keywords=KEYWORDS):
                found.add(message_id, locations=[(str(path.relative_to(root)), 0)], context=context)
    return found


def read_catalogue(path: Path = SOURCE) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, locale="ru")


def compile_catalogue(catalogue: Catalog) -> bytes:
    """Return the .mo contents of the catalogue."""
    file = BytesIO()
    write_mo(file, catalogue)
    return file.getvalue()


def catalogue_errors(code: Catalog, catalogue: Catalog) -> list[str]:
    """Return what remains to be translated, one line per message; empty if the catalogue is complete."""
    ours = {_key(message): message for message in catalogue if message.id}
    needed = {_key(message) for message in code if message.id}
    errors = [f"missing: {key}" for key in sorted(needed - ours.keys(), key=str)]
    errors += [f"no longer in the code: {key}" for key in sorted(ours.keys() - needed, key=str)]
    errors += [f"obsolete: {key}" for key in catalogue.obsolete]
    for key, message in ours.items():
        forms = _texts(message.string)
        if len(forms) != (catalogue.num_plurals if message.pluralizable else 1) or not all(forms):
            errors.append(f"not translated: {key}")
        elif message.fuzzy:
            errors.append(f"fuzzy: {key}")
        elif any(_placeholders(form) != _placeholders(_texts(message.id)[-1]) for form in forms):
            errors.append(f"other placeholders: {key}")
    return errors


def _key(message: Message) -> tuple[str | None, Id]:
    return message.context, message.id


def _texts(forms: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return (forms,) if isinstance(forms, str) else tuple(forms)


def _placeholders(text: str) -> Counter[str]:
    return Counter(_PLACEHOLDER.findall(text))


def main() -> int:
    """Rewrite both files; return 1 if a message needs a translation."""
    code, catalogue = extract_messages(), read_catalogue()
    code.creation_date = catalogue.creation_date  # otherwise every run would change the file
    catalogue.update(code, no_fuzzy_matching=True)
    with SOURCE.open("wb") as file:
        write_po(file, catalogue, width=110, include_lineno=False, ignore_obsolete=True, sort_output=True)
    catalogue = read_catalogue()
    COMPILED.write_bytes(compile_catalogue(catalogue))
    problems = catalogue_errors(code, catalogue)
    sys.stdout.write("".join(f"{line}\n" for line in problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
