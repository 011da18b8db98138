"""What is left of English on a page in Russian."""

import re
from html.parser import HTMLParser

# What stays as it is in any language: names, abbreviations, and what one types.
NOT_ENGLISH = {
    *(
        "Prihod",
        "English",
        "JSON",
        "CSV",
        "Excel",
        "xlsx",
        "UTC",
        "API",
        "JavaScript",
        "Celery",
        "id",
        "ID",
        "QR",
        "TOTP",
    ),
    *(
        "bank",
        "tbank",
        "tochka",
        "manage.py",
        "verify_ledger",
        "read:all",
        "FAILURE",
        "Operators",
        "Auditors",
    ),
    *("Excel", "xlsx"),
    # In Django's own Russian; the last three have none.
    *("Control", "Command", "Mac", "LDAP", "Single", "Sing-On", "Search", "True", "False"),
}
# Where Django and Celery name a row themselves.
ROWS = re.compile(r"Group-permission relationships?( Group_permissions object)?|Task")
_TOKEN = re.compile(r"[\w.:@/+#-]+")
_LETTERS = re.compile(r"[A-Za-z]{2}")
_OTHER = re.compile(r"[\dА-Яа-я]")  # an id or a moment; QR-код


class VisibleText(HTMLParser):
    """The texts of a page that people see, pointers and readers aloud included."""

    told_by = ("title", "alt", "placeholder", "aria-label")
    # What was typed or sent stands in pre, code and textarea; permissions and zones are rows and names.
    hidden = ("script", "style", "pre", "code", "textarea")
    data = ("id_user_permissions", "id_permissions", "id_zone")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag in self.hidden or told.get("id") in self.data:
            self._inside.append(tag)
        self.texts += [told[name] or "" for name in self.told_by if name in told]
        if tag == "input" and told.get("type") in {"submit", "button"}:
            self.texts.append(told.get("value") or "")

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, text: str) -> None:
        if not self._inside:
            self.texts.append(text)


def find_english(page: str) -> list[str]:
    """The runs of Latin words in a page, but for what is in no language."""
    found = []
    for text in VisibleText(page).texts:
        run: list[str] = []
        for token in [*_TOKEN.findall(text), ""]:
            word = token.strip(".:-/#")
            if _LETTERS.search(word) and not _OTHER.search(word) and word not in NOT_ENGLISH:
                run.append(word)
            elif run:
                found.append(" ".join(run))
                run = []
    return [words for words in found if not ROWS.fullmatch(words)]
