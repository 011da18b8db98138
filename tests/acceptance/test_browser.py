"""An operator's workflow in Chromium, which also reports violations of the Content-Security-Policy."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.acceptance.production import webhook
from tests.factories import IVANOV, ROMASHKA, VASILEK
from tests.harness.launcher_stack import LauncherStack
from tests.harness.servers import chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed")

STAFF = """
from django.contrib.auth.models import Group, User
for name, group in [("olga", "Operators"), ("anton", "Auditors")]:
    person = User.objects.create_user(name, password="a long password", is_staff=True)
    person.groups.add(Group.objects.get(name=group))
"""
FAILED = """
from datetime import UTC, datetime
from ingest.models import Webhook
Webhook.objects.create(
    operation_id="{operation_id}", payer_inn="{inn}", amount_kopecks=14500000, document_number="PAY-328",
    document_date=datetime(2024, 4, 27, 21, tzinfo=UTC), body=b"{{}}", status="failed", attempts=5,
    last_error="OperationalError(1114, 'The table is full')",
    error_fingerprint="OperationalError: The table is full",
)
"""
CORRECTED = "7736050003"  # has a payment that an operator corrects
# Horizontal overflow in pixels.
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
PAGES = [
    *(
        "/admin/",
        "/admin/ingest/webhook/",
        "/admin/ingest/webhook/failures/",
        "/admin/ingest/operatoraction/",
    ),
    *("/admin/ingest/conflictingdelivery/", "/admin/ingest/rejecteddelivery/", "/admin/ledger/organization/"),
    "/admin/ledger/unassignedpayment/",
    *("/admin/ledger/payment/", "/admin/ledger/balancelog/", "/admin/django_celery_results/taskresult/"),
]


@pytest.fixture(scope="module")
def failing_stack(stack: LauncherStack) -> LauncherStack:
    """Two webhooks, of ROMASHKA and of VASILEK, failed for a cause that has been fixed since."""
    failed = [FAILED.format(operation_id=uuid4(), inn=inn) for inn in (ROMASHKA, VASILEK)]
    done = stack.manage("shell", "-c", "".join([STAFF, *failed]))
    assert done.returncode == 0, done.stderr
    return stack


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium()), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def log_in(
    browser: Browser, stack: LauncherStack, name: str, console_messages: list[str] | None = None
) -> Page:
    """Return a page of the logged in user, and append the console's warnings and errors to the list.

    Chromium also informs that a field was filled before autofocus reached it, which depends on speed.
    """
    page = browser.new_context(base_url=stack.url).new_page()

    def append(message: ConsoleMessage) -> None:
        if console_messages is not None and message.type in {"warning", "error"}:
            console_messages.append(f"{page.url}: {message.text}")

    page.on("console", append)
    page.goto("/admin/")
    page.fill("#id_username", name)
    page.fill("#id_password", "a long password")
    page.click("input[type=submit]")
    expect(page.locator("#user-tools")).to_contain_text(name)
    return page


def open_failed(page: Page, inn: str = VASILEK) -> None:
    page.goto("/admin/ingest/webhook/")
    page.fill("#searchbar", inn)
    page.click("#changelist-search input[type=submit]")
    page.click("#result_list tbody tr th a")


def test_operator_finds_and_replays_a_failed_webhook(failing_stack: LauncherStack, browser: Browser) -> None:
    page = log_in(browser, failing_stack, "olga")
    open_failed(page, ROMASHKA)
    expect(page.locator("body")).to_contain_text("The table is full")

    page.get_by_role("link", name="Replay").first.click()
    page.fill("[name=reason]", "the disk has free space again")
    page.locator("form:has([name=reason]) [type=submit]").first.click()

    failing_stack.wait_for_balance(ROMASHKA, 145000)
    open_failed(page, ROMASHKA)
    expect(page.locator("body")).to_contain_text("the disk has free space again")
    expect(page.locator("body")).to_contain_text("Applied: posted to the ledger")


def test_auditor_sees_the_webhook_without_actions(failing_stack: LauncherStack, browser: Browser) -> None:
    page = log_in(browser, failing_stack, "anton")
    open_failed(page)
    expect(page.locator("body")).to_contain_text("The table is full")
    expect(page.get_by_role("link", name="Replay")).to_have_count(0)

    response = page.goto("/admin/ingest/webhook/action/replay/?ids=1")
    assert response is not None
    assert response.status == 403


def test_operator_corrects_a_payment_and_an_auditor_may_not(
    failing_stack: LauncherStack, browser: Browser
) -> None:
    payment = webhook(payer_inn=CORRECTED)
    for amount in (145000, 90000):
        assert failing_stack.deliver({**payment, "amount": amount})[0] == 200
        failing_stack.wait_for_balance(CORRECTED, 145000)
    auditor = log_in(browser, failing_stack, "anton")
    open_conflict(auditor)
    expect(auditor.get_by_role("link", name="Reverse and replace")).to_have_count(0)

    page = log_in(browser, failing_stack, "olga")
    open_conflict(page)
    page.get_by_role("link", name="Reverse and replace").click()
    correction = page.url
    expect(page.locator("table.listing")).to_contain_text("−145\N{NO-BREAK SPACE}000,00\N{NO-BREAK SPACE}₽")
    page.fill("[name=reason]", "the bank confirmed 90 000 by phone")
    page.get_by_role("button", name="Reverse and replace 1 payment").click()

    failing_stack.wait_for_balance(CORRECTED, 90000)
    page.locator("table.listing a").first.click()
    expect(page.locator("ol.timeline")).to_contain_text("Reversed: the payment is taken back")
    expect(page.locator("ol.timeline")).to_contain_text("Posted again, with other terms")
    response = auditor.goto(correction)
    assert response is not None
    assert response.status == 403


def open_conflict(page: Page) -> None:
    page.goto("/admin/ingest/conflictingdelivery/")
    page.click("#result_list tbody tr th a")


def test_pages_conform_to_the_content_security_policy(failing_stack: LauncherStack, browser: Browser) -> None:
    console_messages: list[str] = []
    page = log_in(browser, failing_stack, "olga", console_messages)
    for path in PAGES:
        response = page.goto(path)
        assert response is not None
        assert response.status == 200, path
    open_failed(page)
    page.goto("/api/docs/")
    expect(page.locator(".opblock").first).to_be_visible()

    assert [text for text in console_messages if "favicon" not in text and "404" not in text] == []


def test_pages_fit_a_phone_screen(failing_stack: LauncherStack, browser: Browser) -> None:
    assert failing_stack.deliver(webhook(payer_inn=IVANOV))[0] == 200
    failing_stack.wait_for_balance(IVANOV, 145000)
    page = log_in(browser, failing_stack, "olga")
    page.goto("/admin/ledger/organization/")
    organization = page.locator("#result_list tbody a").first.get_attribute("href")
    assert organization is not None
    open_failed(page)
    pages = [
        *PAGES,
        organization,
        page.url,
        "/admin/ingest/webhook/action/replay/?status__exact=failed&all=1",
    ]

    page.set_viewport_size({"width": 360, "height": 800})
    too_wide = {}
    for path in pages:
        page.goto(path)
        too_wide[path] = page.evaluate(TOO_WIDE)

    assert too_wide == dict.fromkeys(pages, 0)


def test_admin_follows_browser_language_until_switched(
    failing_stack: LauncherStack, browser: Browser
) -> None:
    page = browser.new_context(base_url=failing_stack.url, locale="ru-RU").new_page()
    page.goto("/admin/")
    expect(page.locator("label[for=id_password]")).to_contain_text("Пароль")
    page.fill("#id_username", "olga")
    page.fill("#id_password", "a long password")
    page.click("input[type=submit]")
    expect(page.locator("body")).to_contain_text("1 вебхук с ошибкой требует решения оператора")
    page.goto("/admin/ingest/webhook/")
    expect(page.locator("#result_list")).to_contain_text("145\N{NO-BREAK SPACE}000,00\N{NO-BREAK SPACE}₽")

    page.get_by_role("button", name="English").click()
    expect(page.locator("#content h1")).to_have_text("Select webhook to view")
    page.goto("/admin/")
    expect(page.locator("body")).to_contain_text("1 webhook has failed and needs an operator")
