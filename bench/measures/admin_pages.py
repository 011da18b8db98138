"""The operators' room beside 200 thousand webhooks, 5 thousand of them failed: its slowest page."""

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
from bench.measurements import Bound, Measurement
from bench.systems import InvalidRun
from ingest.models import OperatorAction, Webhook
from ingest.operator_actions import CHUNK_WEBHOOKS
from ledger.models import Organization

MEASURE = "room"
PAGE_SECONDS_MAX = 1.0
PAGES_MAX = 400
FAILED = 5_000
BACKLOG = 1_000
BOOKS = [Group(1, 100_000), Group(950, 100)]
QUICK_BOOKS = [Group(1, 10_000), Group(100, 100)]
ROOM = re.compile(r"/admin/(?:(?:ingest|ledger|django_celery_results|worker)/(?!.*/(?:add|delete)/).*)?")
_LINK = re.compile(r'(?:href|formaction)="([^"#]+)"')
_ANEW = re.compile(r"[?](q|o)=")  # searches have their own list, and no list can be sorted
_OWN = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9]+")  # what makes one row's page differ from another's


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Measurement]:
    with worker_stack() as stack, connected_to(stack):
        books = QUICK_BOOKS if quick else BOOKS
        fill_ledger(books)
        write_failures(FAILED + CHUNK_WEBHOOKS)  # the act below moves so many
        enqueue(BACKLOG, organizations=100)
        client = Client(HTTP_HOST="localhost")
        client.force_login(get_user_model().objects.create_superuser("bench"))
        seconds = {"to begin an act on all": act_on_all(client), **walked(client)}
    slowest = max(seconds, key=seconds.__getitem__)
    webhooks = sum(group.rows for group in books) + FAILED + CHUNK_WEBHOOKS + BACKLOG
    told = f"of {len(seconds)} pages beside {webhooks} webhooks the slowest is"
    say(f"{told} {slowest}: {seconds[slowest]:.2f} s")
    bound = Bound(PAGE_SECONDS_MAX, at_least=False)
    yield Measurement(
        MEASURE, "the slowest page of the operators' room", "s", [seconds[slowest]], bound=bound
    )


def act_on_all(client: Client) -> float:
    """Seconds of the request that begins a replay of all that failed; its first chunk is carried out."""
    path = f"{reverse('admin:ingest_webhook_action', args=[OperatorAction.Kind.REPLAY])}?all=1&status__exact=failed"
    begun = time.perf_counter()
    if client.post(path, {"reason": "the benchmark's"}).status_code != 302:
        raise InvalidRun(f"{path} began no act")
    return time.perf_counter() - begun


def walked(client: Client) -> dict[str, float]:
    """Seconds of each page by its address: every search, and from the front page on wherever links lead.

    Of pages that differ only in the row that they show the first is taken; of a list's filters one at a time.
    """
    front = reverse("admin:index")
    client.get(front)
    seconds: dict[str, float] = {}
    ahead, met = [front, *searches(), *organizations()], set[str]()
    while ahead:
        path = ahead.pop(0)
        if path in seconds:
            continue
        seconds[path], text = read(client, path)
        if len(seconds) > PAGES_MAX:
            raise InvalidRun(f"more than {PAGES_MAX} pages: the walk goes round in circles")
        for link in _LINK.findall(text):
            there = urljoin(path, unescape(link)).partition("?_changelist_filters")[0]
            kind = _OWN.sub("#", there)
            if (
                kind not in met
                and ROOM.fullmatch(there)
                and there.count("=") <= 1
                and not _ANEW.search(there)
            ):
                met.add(kind)
                ahead.append(there)
    return seconds


def read(client: Client, path: str) -> tuple[float, str]:
    """Seconds to a page, or to the beginning of a file; and the page's text."""
    begun = time.perf_counter()
    answer: Any = client.get(path)
    content = next(iter(answer.streaming_content)) if answer.streaming else answer.content
    duration = time.perf_counter() - begun
    answer.close()
    if answer.status_code not in {200, 302}:
        raise InvalidRun(f"{path} was answered {answer.status_code}")
    is_page = answer.headers.get("Content-Type", "").startswith("text/html")
    return duration, content.decode() if is_page else ""


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
    ]
    for text in [*texts, "nobody knows this"]:
        for more in ({}, {"status__exact": Webhook.Status.FAILED.value}, {"received": "day"}):
            yield f"{webhooks}?{urlencode({'q': text, **more})}"
    kind = Webhook.objects.failed().latest("id").error_fingerprint
    yield f"{webhooks}?{urlencode({'status__exact': Webhook.Status.FAILED.value, 'error_fingerprint': kind})}"


def organizations() -> Iterator[str]:
    """Of the one with the most lines: its page, of a period too, and the statement of a day."""
    most = Organization.objects.order_by("-last_seq")[0].pk
    page = reverse("admin:ledger_organization_change", args=[most])
    yield page
    yield f"{page}?first=2024-01-01&last=2024-01-01"
    yield f"{reverse('admin:ledger_organization_csv', args=[most])}?first=2024-01-01&last=2024-01-01"
