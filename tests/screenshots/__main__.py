"""Take the screenshots: `python -m tests.screenshots [folder]`, docs/screenshots unless given.

It starts a house of its own on SQLite, whose past is past.py's, breaks two things in it, has an operator
repair them, and looks at her pages in each language with the system's Chromium. The machine's name and port
are replaced on the pages by those of the README.
"""

import io
import random
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from ledger.terms import PaymentTerms
from tests.acceptance.house import House, until
from tests.screenshots.bank import PASSWORD, ROMASHKA, body, payment
from tests.servers import ROOT, chromium

FOLDER = ROOT / "docs/screenshots"
LANGUAGES = {"en": "en-GB", "ru": "ru-RU"}
WIDTH, HEIGHT_MAX = 1200, 1400  # pixels
COLOURS = 128  # text on a plain ground needs no more
DICE = random.Random(8)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

# The machine's name is nobody's business, and a new one in each picture would be a change in each commit.
NAMELESS = """([from, to]) => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(from, to)
}"""


class Photographer:
    """Looks at a house as olga, in each language, and keeps what she sees."""

    def __init__(self, house: House, browser: Browser, folder: Path) -> None:
        self.house, self.browser, self.folder = house, browser, folder
        self.contexts = {language: self._logged_in(locale) for language, locale in LANGUAGES.items()}

    def _logged_in(self, locale: str) -> BrowserContext:
        context = self.browser.new_context(
            base_url=self.house.url, locale=locale, timezone_id="Europe/Moscow",
            viewport={"width": WIDTH, "height": 800}, reduced_motion="reduce",
        )  # fmt: skip
        page = context.new_page()
        page.goto("/admin/")
        page.fill("#id_username", "olga")
        page.fill("#id_password", PASSWORD)
        page.click("input[type=submit]")
        page.close()
        return context

    def take(
        self,
        name: str,
        path: str,
        *,
        dark: bool = False,
        before: Callable[[Page], object] = lambda page: None,
    ) -> None:
        for language, context in self.contexts.items():
            page = context.new_page()
            page.emulate_media(color_scheme="dark" if dark else "light")
            page.goto(path)
            page.wait_for_load_state("networkidle")
            before(page)
            page.evaluate(NAMELESS, [socket.gethostname(), "prihod"])
            page.evaluate(NAMELESS, [str(self.house.port), "8000"])
            height = min(page.evaluate("document.documentElement.scrollHeight"), HEIGHT_MAX)
            clip = {"x": 0, "y": 0, "width": WIDTH, "height": height}
            keep(
                page.screenshot(full_page=True, clip=clip, scale="css"),
                self.folder / language / f"{name}.png",
            )
            page.close()


def keep(picture: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    sys.stdout.write(f"{path.stat().st_size // 1024:4} KiB  {path}\n")


class Story:
    """What happens in the house, told by plain SQL and by the bank's deliveries."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.database = house.data_dir / "prihod.sqlite3"

    def sql(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        with sqlite3.connect(self.database, timeout=30) as connection:
            return connection.execute(statement, values).fetchall()

    def deliver(self, told: PaymentTerms, **changed: object) -> None:
        self.house.post(body(told, **changed), {})

    def status(self, told: PaymentTerms) -> object:
        (row,) = self.sql("SELECT status FROM ingest_webhook WHERE operation_id = ?", told.operation_id.hex)
        return row[0]

    def key(self, told: PaymentTerms) -> object:
        (row,) = self.sql("SELECT id FROM ingest_webhook WHERE operation_id = ?", told.operation_id.hex)
        return row[0]

    def one_payment_fails_and_is_repaired(self, photographer: Photographer) -> PaymentTerms:
        """It is told again twice, the second time with another amount."""
        told = PaymentTerms(payment(DICE, TODAY).operation_id, ROMASHKA, 145_000_00, "328", TODAY)
        self.sql(
            "CREATE TRIGGER full BEFORE INSERT ON ledger_payment WHEN NEW.amount_kopecks = 14500000"
            " BEGIN SELECT RAISE(ABORT, 'the disk has no room for ledger_payment'); END"
        )
        self.deliver(told)
        self.deliver(told)
        until(lambda: self.status(told) == "failed", self.house)
        self.deliver(told, amount="154000.00")
        self.sql("DROP TRIGGER full")
        page = photographer.contexts["en"].new_page()
        page.goto(f"/admin/ingest/webhook/act/replay/?ids={self.key(told)}")
        page.fill("[name=reason]", "The disk has room again; asked the bank: 145 000 is right")
        page.click("form.act [type=submit], form:has([name=reason]) [type=submit]")
        page.close()
        until(lambda: self.status(told) == "applied", self.house)
        return told

    def today(self) -> None:
        """A minute's deliveries, some of which are wrong."""
        for _ in range(12):
            self.deliver(payment(DICE, TODAY))
        wrong: list[dict[str, object]] = [
            {"amount": "0"},
            {"payer_inn": "77070838"},
            {"document_date": "28.04."},
        ]
        for changed in wrong:
            self.deliver(payment(DICE, TODAY), **changed)


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        environment = {
            "LOG_LEVEL": "WARNING",
            "ATTEMPTS_MAX": "3",
            "ATTEMPT_DELAY_SECONDS": "0.2",
            "SWEEP_EVERY_SECONDS": "0.3",
        }
        house = House(Path(temporary), **environment)
        house.data_dir.mkdir()
        for command in (
            ["migrate", "-v0"],
            ["shell", "-v0", "-c", "from tests.screenshots import past; past.make()"],
        ):
            done = house.manage(*command)
            assert done.returncode == 0, done.stderr
        browser = playwright.chromium.launch(executable_path=str(chromium()), args=["--no-sandbox"])
        with house:
            play(Photographer(house, browser, folder), Story(house))
        browser.close()


def play(photographer: Photographer, story: Story) -> None:
    house = photographer.house
    assert house.manage("verify_ledger").returncode == 0
    story.today()
    repaired = story.one_payment_fails_and_is_repaired(photographer)
    until(lambda: story.sql("SELECT 1 FROM ingest_webhook WHERE status = 'received'") == [], house)

    photographer.take("dashboard", "/admin/")
    photographer.take("dashboard-dark", "/admin/", dark=True)
    photographer.take("failures", "/admin/ingest/webhook/failures/")
    photographer.take("webhook", f"/admin/ingest/webhook/{story.key(repaired)}/change/")
    ((organization,),) = story.sql("SELECT id FROM ledger_organization WHERE inn = ?", ROMASHKA)
    photographer.take("organization", f"/admin/ledger/organization/{organization}/change/")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else FOLDER)
