"""The slowest page of the operators' admin beside 200 thousand webhooks, 5 thousand of them failed."""

import re
import time
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any
from urllib.parse import urljoin

from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
from django.utils.http import urlencode

from bench.database import connected_to, worker_stack
from bench.generator import Group, enqueue, fill_ledger, inn_of_organization, write_failures
from bench.measurements import Measurement, at_most
from bench.systems import InvalidRun
from ingest.models import OperatorAction, Webhook
from ingest.operator_actions import CHUNK_WEBHOOKS
from ledger.models import Organization
from tests.admin_client import hidden_fields

MEASURE = "admin_pages"
PAGE_SECONDS_MAX = 1.0
PAGES_MAX = 400
FAILED = 5_000
BACKLOG = 1_000
LEDGER = [Group(1, 100_000), Group(950, 100)]
QUICK_LEDGER = [Group(1, 10_000), Group(100, 100)]
# Without .xlsx downloads: such a file is complete before its first byte, which takes up to 9 s of CPU time
# (ledger/statement_xlsx.py).
OPERATORS_PAGES = re.compile(
    r"/admin/(?:(?:ingest|ledger|django_celery_results|worker)/(?!.*/(?:add|delete)/|.*[.]xlsx).*)?"
)
_LINK = re.compile(r'(?:href|formaction)="([^"#]+)"')
_SEARCH_OR_SORT = re.compile(r"[?](q|o)=")  # searches are listed separately, and no list can be sorted
_KEY = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9]+")  # tells one row's page from another's


def measure(quick: bool, log: Callable[[str], None]) -> Iterator[Measurement]:
    with worker_stack() as stack, connected_to(stack):
        groups = QUICK_LEDGER if quick else LEDGER
        fill_ledger(groups)
        write_failures(FAILED + CHUNK_WEBHOOKS)  # the operator action below moves so many
        enqueue(BACKLOG, organizations=100)
        client = Client(HTTP_HOST="localhost")
        client.force_login(get_user_model().objects.create_superuser("bench"))
        seconds = {"to start an operator action on all": act_on_all(client), **crawl(client)}
    slowest = max(seconds, key=seconds.__getitem__)
    webhooks = sum(group.rows for group in groups) + FAILED + CHUNK_WEBHOOKS + BACKLOG
    text = f"of {len(seconds)} pages beside {webhooks} webhooks the slowest is"
    log(f"{text} {slowest}: {seconds[slowest]:.2f} s")
    bound = at_most(PAGE_SECONDS_MAX)
    yield Measurement(MEASURE, "the slowest page of the operators", "s", [seconds[slowest]], bound=bound)


def act_on_all(client: Client) -> float:
    """Return the seconds of the request that replays all failed webhooks and runs the first chunk."""
    action = reverse("admin:ingest_webhook_action", args=[OperatorAction.Kind.REPLAY])
    path = f"{action}?all=1&status__exact=failed"
    confirmation = hidden_fields(client.get(path))
    started = time.perf_counter()
    if client.post(path, {**confirmation, "reason": "the benchmark's"}).status_code != 302:
        raise InvalidRun(f"{path} started no operator action")
    return time.perf_counter() - started


def crawl(client: Client) -> dict[str, float]:
    """Return the seconds of each page by its path: all searches, and all pages linked from the front page on.

    Of pages that differ only in the row shown the first is measured; filters of a list are combined with no
    other.
    """
    front = reverse("admin:index")
    client.get(front)
    seconds: dict[str, float] = {}
    queue, seen = [front, *searches(), *organization_pages()], set[str]()
    while queue:
        path = queue.pop(0)
        if path in seconds:
            continue
        seconds[path], text = read(client, path)
        if len(seconds) > PAGES_MAX:
            raise InvalidRun(f"more than {PAGES_MAX} pages: the crawl does not end")
        for link in _LINK.findall(text):
            target = urljoin(path, unescape(link)).partition("?_changelist_filters")[0]
            pattern = _KEY.sub("#", target)
            if pattern not in seen and _is_measured(target):
                seen.add(pattern)
                queue.append(target)
    return seconds


def _is_measured(path: str) -> bool:
    return bool(OPERATORS_PAGES.fullmatch(path)) and path.count("=") <= 1 and not _SEARCH_OR_SORT.search(path)


def read(client: Client, path: str) -> tuple[float, str]:
    """Return the seconds to a page, or to the first chunk of a file, and the page's text."""
    started = time.perf_counter()
    response: Any = client.get(path)
    content = next(iter(response.streaming_content)) if response.streaming else response.content
    seconds = time.perf_counter() - started
    response.close()
    if response.status_code not in {200, 302}:
        raise InvalidRun(f"{path} was answered {response.status_code}")
    is_page = response.headers.get("Content-Type", "").startswith("text/html")
    return seconds, content.decode() if is_page else ""


def searches() -> Iterator[str]:
    webhooks = reverse("admin:ingest_webhook_changelist")
    newest, oldest = Webhook.objects.latest("id"), Webhook.objects.earliest("id")
    texts = [
        str(newest),
        str(oldest),
        inn_of_organization(1),
        inn_of_organization(2),
        inn_of_organization(999_999),
        "PAY-77",
        "50,00",
        "145 000,00 ₽",
        "unknown text",
    ]
    for text in texts:
        for more in ({}, {"status__exact": Webhook.Status.FAILED.value}, {"received": "day"}):
            yield f"{webhooks}?{urlencode({'q': text, **more})}"
    fingerprint = Webhook.objects.failed().latest("id").error_fingerprint
    parameters = {"status__exact": Webhook.Status.FAILED.value, "error_fingerprint": fingerprint}
    yield f"{webhooks}?{urlencode(parameters)}"


def organization_pages() -> Iterator[str]:
    """Yield the page of the organization with the most entries, also of a period, and a day's statement."""
    largest = Organization.objects.order_by("-last_seq")[0].pk
    page = reverse("admin:ledger_organization_change", args=[largest])
    yield page
    yield f"{page}?first=2024-01-01&last=2024-01-01"
    yield f"{reverse('admin:ledger_organization_csv', args=[largest])}?first=2024-01-01&last=2024-01-01"
