"""An accountant in Chromium: drop the bank's statement on the page, read its verdict, settle a bucket."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.acceptance.test_browser import STAFF, TOO_WIDE, log_in
from tests.harness.launcher_stack import LauncherStack
from tests.harness.servers import chromium
from tests.screenshots.sample_statement import ACCOUNT, Movement, statement

pytestmark = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed")
DAY = datetime.now(UTC).date() - timedelta(days=4)  # banks may notify for a day after it
PAYER = "7736050003"
RECONCILIATION = "/admin/statements/statementline/reconciliation/"
SETTLE = "/admin/statements/statementline/settle/"
FILE = statement(DAY, DAY, 0, [Movement("ООО «Ландыш»", PAYER, "328", 145_000_00)])
DROP = """files => {
    const transfer = new DataTransfer()
    for (const [name, content] of files)
        transfer.items.add(new File([Uint8Array.from(atob(content), c => c.charCodeAt(0))], name))
    document.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, cancelable: true}))
}"""


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium()), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def drop(page: Page, **files: bytes) -> None:
    encoded = [(name, base64.b64encode(body).decode()) for name, body in files.items()]
    page.evaluate(DROP, encoded)


def test_accountant_uploads_by_drag_and_drop_and_settles_what_differs(
    stack: LauncherStack, browser: Browser
) -> None:
    done = stack.manage("shell", "-c", STAFF)
    assert done.returncode == 0, done.stderr
    console: list[str] = []
    page = log_in(browser, stack, "olga", console)
    page.goto("/admin/statements/bankstatement/add/")
    drop(page, whole=FILE, cut=FILE[:300])
    refused = page.locator("#results li", has_text="whole")
    expect(refused).to_contain_text("The account is not among our own accounts.")
    expect(page.locator("#results li", has_text="cut")).to_contain_text("The file is cut off")

    add_account(page, refused.get_by_role("link", name="Add it to our accounts").get_attribute("href") or "")
    refused.get_by_role("button", name="Upload again").click()
    proven = page.locator("#results li", has_text="proven")
    expect(proven).to_contain_text("1 line, 1 of them new")
    expect(page.locator("#matched")).to_contain_text("1 difference to settle")

    proven.get_by_role("link", name="Reconciliation of these days").click()
    expect(page.locator(".headline")).to_contain_text("1 difference to settle")
    page.get_by_role("link", name="Post from the statement").click()
    page.fill("[name=reason]", "the bank confirms that it sent no webhook")
    page.click("form.confirmation [type=submit]")
    stack.wait_for_balance(PAYER, 145000)

    stack.wait_until(lambda: headline(page).startswith("Everything is explained"))  # matched by a worker
    assert_pages_fit_a_phone(page)
    assert [text for text in console if "404" not in text] == []  # of the favicon


def headline(page: Page) -> str:
    page.goto(RECONCILIATION)
    return page.locator(".headline").inner_text()


def assert_pages_fit_a_phone(page: Page) -> None:
    """No page scrolls sideways; wide tables do so on their own."""
    page.set_viewport_size({"width": 360, "height": 800})
    paths = [f"/admin/statements/{name}/" for name in ("bankstatement", "ownaccount", "rejectedstatement")]
    for path in [*paths]:
        page.goto(path)
        paths += [link.get_attribute("href") or "" for link in page.locator("#result_list tbody a").all()[:1]]
    page.goto(f"{RECONCILIATION}?bucket=matched")
    paths += [link.get_attribute("href") or "" for link in page.locator("#lines tbody a").all()]
    paths += [page.url, f"{SETTLE}unmatch/?bucket=matched", "/admin/statements/bankstatement/add/"]
    too_wide = {}
    for path in paths:
        page.goto(path)
        too_wide[path] = page.evaluate(TOO_WIDE)
    assert too_wide == dict.fromkeys(paths, 0)


def add_account(page: Page, path: str) -> None:
    """Add the account in another tab, as the link does."""
    assert ACCOUNT in path
    form = page.context.new_page()
    form.goto(path)
    form.fill("[name=since]", f"{DAY:%Y-%m-%d}")
    form.click("[name=_save]")
    expect(form.locator(".messagelist .success")).to_be_visible()
    form.close()
