"""Take the screenshots: `python -m tests.screenshots [folder]`, by default docs/screenshots.

Start a stack on SQLite with the data of sample_history.py, make payments fail, have an operator repair them,
and take each page in each language with the system's Chromium. Host name and port on the pages are replaced
by the README's.
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
from tests.harness.launcher_stack import LauncherStack
from tests.harness.servers import ROOT, chromium
from tests.payloads import payment_body
from tests.screenshots import sample_statement
from tests.screenshots.sample_payments import PASSWORD, ROMASHKA, VASILEK, payment

FOLDER = ROOT / "docs/screenshots"
LANGUAGES = {"en": "en-GB", "ru": "ru-RU"}
WIDTH = 1200  # pixels
MARGIN = 24  # below the element
COLOURS = 256
HISTORY_SECONDS_MAX = 600.0  # to generate the data, on a machine that does much else
RANDOM = random.Random(8)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
REPAIRED = {
    "en": "Disk space freed. The bank confirmed by phone: 145 000 is correct",
    "ru": "Место на диске освобождено. Банк подтвердил по телефону сумму 145 000",
}
REPLAYED = {
    "en": "The disk was full for an hour; 200 GB were added",
    "ru": "После обновления не хватало прав на новую таблицу; права выданы",
}
CORRECTED = {
    "en": "By the bank's letter of today 154 000 is correct",
    "ru": "По сегодняшнему письму банка верна сумма 154 000",
}
ASSIGNED = {
    "en": "Paid by the director of Vasilek for the invoice 45",
    "ru": "Директор «Василька» оплатил счёт 45",
}
CAUSES = {"en": "is full", "ru": "denied"}  # one per language, because each is replayed once

# The host name is private, and a different one in each run would change every picture.
REPLACE_TEXT = """([from, to]) => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(from, to)
}"""


class Operator:
    """An operator's browser in one language."""

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
        click(page, "input[type=submit]")
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
        """Save a picture of the page from the top down to the end of this element."""
        page.evaluate(REPLACE_TEXT, [socket.gethostname(), "prihod"])
        page.evaluate(REPLACE_TEXT, [str(self.stack.port), "8000"])
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


def click(page: Page, button: str) -> None:
    """Click, and wait for the next page: Chromium can't close a page that is still navigating."""
    page.click(button)
    page.wait_for_load_state("networkidle")


class SampleBank:
    """Deliver to the stack, and query the results by plain SQL."""

    def __init__(self, stack: LauncherStack) -> None:
        self.stack = stack

    def sql(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        with sqlite3.connect(self.stack.data_dir / "prihod.sqlite3", timeout=30) as connection:
            return connection.execute(statement, values).fetchall()

    def deliver(self, terms: PaymentTerms, **changed: object) -> None:
        self.stack.post(payment_body(terms, **changed), {})

    def webhook(self, terms: PaymentTerms) -> tuple[object, ...]:
        """Return the primary key and status."""
        where = "SELECT id, status FROM ingest_webhook WHERE operation_id = ?"
        return self.sql(where, terms.operation_id.hex)[0]

    def wait_for_status(self, terms: PaymentTerms, status: str) -> None:
        self.stack.wait_until(lambda: self.webhook(terms)[1] == status)

    def deliver_sample(self) -> None:
        """Deliver some of today's payments, some of them invalid."""
        for _ in range(6):
            self.deliver(payment(RANDOM, TODAY))
        for wrong in ({"amount": "0"}, {"payer_inn": "77070838"}, {"document_date": "28.04."}):
            self.deliver(payment(RANDOM, TODAY), **wrong)


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        soon = {"ATTEMPTS_MAX": "2", "RETRY_BACKOFF_SECONDS": "0.2", "SWEEP_INTERVAL_SECONDS": "0.3"}
        stack = LauncherStack(Path(temporary), LOG_LEVEL="WARNING", **soon)
        stack.data_dir.mkdir()
        stack.manage_seconds_max = HISTORY_SECONDS_MAX
        create = "from tests.screenshots import sample_history; sample_history.make()"
        for command in (["migrate", "-v0"], ["shell", "-v0", "-c", create], ["verify_ledger"]):
            done = stack.manage(*command)
            assert done.returncode == 0, done.stderr
        browser = playwright.chromium.launch(executable_path=str(chromium()), args=["--no-sandbox"])
        with stack:
            take_all(
                SampleBank(stack), [Operator(stack, browser, language, folder) for language in LANGUAGES]
            )
        browser.close()


def take_all(bank: SampleBank, operators: list[Operator]) -> None:
    bank.deliver_sample()
    repaired = {operator: repair_one_payment(bank, operator) for operator in operators}
    ((organization,),) = bank.sql("SELECT id FROM ledger_organization WHERE inn = ?", ROMASHKA)
    page_of_organization = f"/admin/ledger/organization/{organization}/change/"
    for operator, webhook in repaired.items():
        operator.take("dashboard", "/admin/", down_to=".flow-board")
        operator.take("dashboard-dark", "/admin/", down_to=".flow-board", dark=True)
        operator.take("failures", "/admin/ingest/webhook/failures/", down_to="table.failures")
        operator.take("webhook", f"/admin/ingest/webhook/{webhook}/change/", down_to="fieldset.timeline")
        correct(operator, webhook)
        assign(operator)
        operator.take("organization", page_of_organization, down_to="tbody tr:nth-child(12)")
    for operator in operators:
        reconcile(operator)
    replay(bank, operators)


def reconcile(operator: Operator) -> None:
    """Upload yesterday's statement and files that are refused; show the reconciliation and the calendar."""
    folder = operator.stack.data_dir
    whole = (folder / sample_statement.FILE).read_bytes()
    page = operator.open("/admin/statements/bankstatement/add/")
    files = {"kl_to_1c.txt": whole, "kl_to_1c_cut.txt": whole[:3000]}
    page.set_input_files(
        "#id_file",
        [{"name": name, "mimeType": "text/plain", "buffer": body} for name, body in files.items()],
    )
    page.wait_for_selector("#matched .headline")
    operator.keep("upload", page)
    page.close()
    reconciliation = "/admin/statements/statementline/reconciliation/"
    operator.take("reconciliation", reconciliation, down_to="table.lines tbody tr:nth-child(12)")
    operator.take(
        "reconciliation-dark", reconciliation, down_to="table.lines tbody tr:nth-child(12)", dark=True
    )
    operator.take("covered-days", "/admin/statements/ownaccount/1/change/")


def repair_one_payment(bank: SampleBank, operator: Operator) -> object:
    """Make a payment fail, redeliver it, also with another amount, and replay it; return its primary key."""
    terms = PaymentTerms(payment(RANDOM, TODAY).operation_id, ROMASHKA, 145_000_00, "328", TODAY)
    bank.sql(
        "CREATE TRIGGER refuse_payment BEFORE INSERT ON ledger_payment WHEN NEW.amount_kopecks = 14500000"
        " BEGIN SELECT RAISE(ABORT, 'no space left on device: ledger_payment'); END"
    )
    bank.deliver(terms)
    bank.deliver(terms)
    bank.wait_for_status(terms, "failed")
    bank.deliver(terms, amount="154000.00")
    bank.sql("DROP TRIGGER refuse_payment")
    key = bank.webhook(terms)[0]
    page = operator.open(f"/admin/ingest/webhook/action/replay/?ids={key}")
    page.fill("[name=reason]", REPAIRED[operator.language])
    click(page, "form.confirmation [type=submit]")
    page.close()
    bank.wait_for_status(terms, "applied")
    return key


def correct(operator: Operator, webhook: object) -> None:
    """Reverse the payment and replace it by the conflicting delivery."""
    page = operator.open(f"/admin/ingest/webhook/action/replace/?ids={webhook}")
    page.fill("[name=reason]", CORRECTED[operator.language])
    operator.keep("correction", page)
    click(page, "form.confirmation [type=submit]")
    page.close()
    operator.take("corrected", f"/admin/ingest/webhook/{webhook}/change/", down_to="fieldset.timeline")


def assign(operator: Operator) -> None:
    """Preview the assignment of a payment in suspense, and leave it there."""
    operator.take("unassigned", "/admin/ledger/unassignedpayment/")
    page = operator.open("/admin/ledger/unassignedpayment/")
    click(page, "#result_list .button")
    page.fill("[name=reason]", ASSIGNED[operator.language])
    page.fill("[name=inn]", VASILEK)
    click(page, "form.confirmation [type=submit]")
    operator.keep("assignment", page)
    page.close()


def replay(bank: SampleBank, operators: list[Operator]) -> None:
    """Replay with paused workers, so that the pictures show progress."""
    with bank.stack.paused_workers():
        for operator in operators:
            page = operator.open("/admin/ingest/webhook/failures/")
            row = page.locator("table.failures tr", has_text=CAUSES[operator.language])
            row.locator("a.button").first.click()
            page.fill("[name=reason]", REPLAYED[operator.language])
            operator.keep("replay", page, "table.listing tr:nth-child(10)")
            click(page, "form.confirmation [type=submit]")
            bank.stack.manage(
                "shell", "-v0", "-c", "from worker.applying import apply_batch; apply_batch(312)"
            )
            page.reload()
            operator.keep("replaying", page, "table.listing tr:nth-child(8)")
            page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else FOLDER)
