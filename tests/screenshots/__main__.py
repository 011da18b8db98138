"""Take the screenshots: `python -m tests.screenshots [folder]`, docs/screenshots unless given.

It starts a house of its own on SQLite, whose past is past.py's, breaks something in it, has an operator
repair that, and looks at her pages in each language with the system's Chromium. The machine's name and port
on the pages are replaced by those of the README.
"""

import io
import random
import socket
import sqlite3
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from ledger.terms import PaymentTerms
from tests.harness.launcher_stack import LauncherStack, wait_until
from tests.harness.servers import ROOT, chromium
from tests.payloads import payment_body
from tests.screenshots.sample_payments import PASSWORD, ROMASHKA, payment

FOLDER = ROOT / "docs/screenshots"
LANGUAGES = {"en": "en-GB", "ru": "ru-RU"}
WIDTH = 1200  # pixels
MARGIN = 24  # below it
COLOURS = 256
DICE = random.Random(8)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
REPAIRED = {
    "en": "The disk has room again. The bank says on the phone: 145 000 is right",
    "ru": "На диске снова есть место. Банк подтвердил по телефону: верно 145 000",
}
REPLAYED = {
    "en": "The disk was full for an hour; it has 200 GB more now",
    "ru": "После обновления не хватало прав на новую таблицу; права выданы",
}
CAUSES = {"en": "is full", "ru": "denied"}  # one for each language, because each is replayed once

# The machine's name is nobody's business, and a new one in each picture would be a change in each commit.
NAMELESS = """([from, to]) => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(from, to)
}"""


class Operator:
    """Olga at her browser, which speaks one language."""

    def __init__(self, stack: LauncherStack, browser: Browser, language: str, folder: Path) -> None:
        self.stack, self.language, self.folder = stack, language, folder / language
        self.folder.mkdir(parents=True, exist_ok=True)
        self.context: BrowserContext = browser.new_context(
            base_url=stack.url,
            locale=LANGUAGES[language],
            timezone_id="Europe/Moscow",
            viewport={"width": WIDTH, "height": 400},
        )
        page = self.open("/admin/")
        page.fill("#id_username", "olga")
        page.fill("#id_password", PASSWORD)
        press(page, "input[type=submit]")
        page.close()

    def open(self, path: str, *, dark: bool = False) -> Page:
        page = self.context.new_page()
        page.emulate_media(color_scheme="dark" if dark else "light")
        page.goto(path)
        page.wait_for_load_state("networkidle")
        return page

    def take(self, name: str, path: str, *, dark: bool = False, down_to: str = "#content") -> None:
        page = self.open(path, dark=dark)
        self.keep(name, page, down_to)
        page.close()

    def keep(self, name: str, page: Page, down_to: str = "#content") -> None:
        """A picture of the page from its head down to the end of this element."""
        page.evaluate(NAMELESS, [socket.gethostname(), "prihod"])
        page.evaluate(NAMELESS, [str(self.stack.port), "8000"])
        box = page.locator(down_to).first.bounding_box()
        assert box is not None, down_to
        clip = {"x": 0.0, "y": 0.0, "width": WIDTH, "height": box["y"] + box["height"] + MARGIN}
        taken = page.screenshot(full_page=True, clip=clip, scale="css")  # type: ignore[arg-type]
        path = self.folder / f"{name}.png"
        with Image.open(io.BytesIO(taken)) as image:
            image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
                path, optimize=True
            )
        sys.stdout.write(f"{path.stat().st_size // 1024:4} KiB  {path}\n")


def press(page: Page, button: str) -> None:
    """And wait for what it leads to: Chromium forgets to close a page that is on its way to another."""
    page.click(button)
    page.wait_for_load_state("networkidle")


class SampleBank:
    """Delivers to the house, and looks by plain SQL what became of it."""

    def __init__(self, stack: LauncherStack) -> None:
        self.stack = stack

    def sql(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        with sqlite3.connect(self.stack.data_dir / "prihod.sqlite3", timeout=30) as connection:
            return connection.execute(statement, values).fetchall()

    def deliver(self, told: PaymentTerms, **changed: object) -> None:
        self.stack.post(payment_body(told, **changed), {})

    def webhook(self, told: PaymentTerms) -> tuple[object, ...]:
        """Its key, and its status."""
        where = "SELECT id, status FROM ingest_webhook WHERE operation_id = ?"
        return self.sql(where, told.operation_id.hex)[0]

    def becomes(self, told: PaymentTerms, status: str) -> None:
        wait_until(lambda: self.webhook(told)[1] == status, self.stack)

    def a_few(self) -> None:
        """Of today; some of them are wrong."""
        for _ in range(6):
            self.deliver(payment(DICE, TODAY))
        for wrong in ({"amount": "0"}, {"payer_inn": "77070838"}, {"document_date": "28.04."}):
            self.deliver(payment(DICE, TODAY), **wrong)


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        soon = {"ATTEMPTS_MAX": "2", "RETRY_BACKOFF_SECONDS": "0.2", "SWEEP_INTERVAL_SECONDS": "0.3"}
        stack = LauncherStack(Path(temporary), LOG_LEVEL="WARNING", **soon)
        stack.data_dir.mkdir()
        past = "from tests.screenshots import past; past.make()"
        for command in (["migrate", "-v0"], ["shell", "-v0", "-c", past], ["verify_ledger"]):
            done = stack.manage(*command)
            assert done.returncode == 0, done.stderr
        browser = playwright.chromium.launch(executable_path=str(chromium()), args=["--no-sandbox"])
        with stack:
            play(SampleBank(stack), [Operator(stack, browser, language, folder) for language in LANGUAGES])
        browser.close()


def play(bank: SampleBank, operators: list[Operator]) -> None:
    bank.a_few()
    repaired = {operator: one_payment_is_repaired(bank, operator) for operator in operators}
    ((organization,),) = bank.sql("SELECT id FROM ledger_organization WHERE inn = ?", ROMASHKA)
    page_of_organization = f"/admin/ledger/organization/{organization}/change/"
    for operator, webhook in repaired.items():
        operator.take("dashboard", "/admin/", down_to=".flow-board")
        operator.take("dashboard-dark", "/admin/", down_to=".flow-board", dark=True)
        operator.take("failures", "/admin/ingest/webhook/failures/", down_to="table.failures")
        operator.take("webhook", f"/admin/ingest/webhook/{webhook}/change/", down_to="fieldset.timeline")
        operator.take("organization", page_of_organization, down_to="tbody tr:nth-child(12)")
    replay(bank, operators)


def one_payment_is_repaired(bank: SampleBank, operator: Operator) -> object:
    """It fails, is told again twice, the second time with another amount, and is replayed; its key."""
    told = PaymentTerms(payment(DICE, TODAY).operation_id, ROMASHKA, 145_000_00, "328", TODAY)
    bank.sql(
        "CREATE TRIGGER no_room BEFORE INSERT ON ledger_payment WHEN NEW.amount_kopecks = 14500000"
        " BEGIN SELECT RAISE(ABORT, 'the disk has no room for ledger_payment'); END"
    )
    bank.deliver(told)
    bank.deliver(told)
    bank.becomes(told, "failed")
    bank.deliver(told, amount="154000.00")
    bank.sql("DROP TRIGGER no_room")
    key = bank.webhook(told)[0]
    page = operator.open(f"/admin/ingest/webhook/action/replay/?ids={key}")
    page.fill("[name=reason]", REPAIRED[operator.language])
    press(page, "form.confirmation [type=submit]")
    page.close()
    bank.becomes(told, "applied")
    return key


def replay(bank: SampleBank, operators: list[Operator]) -> None:
    """With workers that stand still, so that the pictures show how far it has come."""
    with bank.stack.paused_workers():
        for operator in operators:
            page = operator.open("/admin/ingest/webhook/failures/")
            row = page.locator("table.failures tr", has_text=CAUSES[operator.language])
            row.locator("a.button").first.click()
            page.fill("[name=reason]", REPLAYED[operator.language])
            operator.keep("replay", page, "table.listing tr:nth-child(10)")
            press(page, "form.confirmation [type=submit]")
            bank.stack.manage(
                "shell", "-v0", "-c", "from worker.applying import apply_batch; apply_batch(312)"
            )
            page.reload()
            operator.keep("replaying", page, "table.listing tr:nth-child(8)")
            page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else FOLDER)
