"""What millions of log lines cost: posting, reading, verifying, sweeping, and looking around in the admin."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from django.conf import settings
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from bench.database import connected_to, require_consistent_ledger, worker_stack
from bench.generator import Group, enqueue, fill_ledger, inn_of_organization, write_failures
from bench.measurements import Bound, Measurement
from bench.systems import InvalidRun
from ingest.models import Webhook
from ledger.models import Payment
from tests.harness.procfile_stack import ProcfileStack
from tests.harness.servers import ROOT
from tests.harness.wait import wait_until
from tests.row_counts import count_rows_read
from worker.applying import apply_batch
from worker.sweeper import sweep

MEASURE = "growth"
# It is to hold the large books, as that of a server does that keeps millions of rows; the small
# books get it, too.
BUFFER_POOL_BYTES = 8 * 1024**3
DIRTY_PAGES_LEFT_MAX, SETTLE_SECONDS_MAX = 100, 300.0
HOT, QUIET, FIRST_OF_THE_OTHERS = 1, 2, 3  # numbers of organizations
POSTED_TO = 100  # of the others
SMALL_BOOKS = [Group(FIRST_OF_THE_OTHERS - 1 + POSTED_TO, 98)]  # ten thousand lines
READS = 100  # a round
READS_RATIO_MAX, COST_RATIO_MAX = 1.2, 1.3
VERIFY_MIB_MAX = 200.0
PAGE_SECONDS_MAX = 1.0
ROWS_READ_MAX = 10_000  # by a page of a list: it counts to 1000, skips up to 1000, and shows 100
# In a search by INN, for no more than 10 000 failed webhooks: the index leads to each; then the keys
# are put in order and looked up, once to be counted and once to be shown.
LOOKS_AT_FAILED = 6


@dataclass(frozen=True)
class Size:
    rounds: int
    books: Sequence[Group]
    webhooks: int  # a round
    trouble: int  # rows of each kind
    backlog: int  # webhooks, while it is swept


QUICK = Size(3, [Group(1, 50_000), Group(1, 100), Group(100, 500)], 2_500, 2_000, 10_000)
FULL = Size(5, [Group(1, 1_000_000), Group(1, 100), Group(1_000, 4_000)], 5_000, 10_000, 100_000)


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Measurement]:
    size = QUICK if quick else FULL
    with worker_stack() as small, worker_stack() as large:
        for stack, books in ((small, SMALL_BOOKS), (large, size.books)):
            with connected_to(stack):
                fill(stack, books, say)
        with connected_to(large):
            write_failures(size.trouble)
        yield cost_per_webhook(small, large, size, say)
        with connected_to(large):
            yield from reads(size, say)
            yield from pages(size, say)
            yield from sweeps(size, say)
            yield from verification(large, say)


def at_most(limit: float) -> Bound:
    return Bound(limit, at_least=False)


def fill(stack: ProcfileStack, books: Sequence[Group], say: Callable[[str], None]) -> None:
    stack.sql(f"SET GLOBAL innodb_buffer_pool_size = {BUFFER_POOL_BYTES}")
    begun = time.perf_counter()
    fill_ledger(books)
    lines = sum(group.rows for group in books)
    settle(stack)
    say(f"{lines:,} lines with payments and webhooks are written in {time.perf_counter() - begun:.0f} s")


def settle(stack: ProcfileStack) -> None:
    """Have the server write into its tables what is only in its redo log; else it did so while we measure."""
    stack.sql("SET GLOBAL innodb_io_capacity = 10000")
    stack.sql("SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0.001")
    stack.sql("SET GLOBAL innodb_max_dirty_pages_pct = 0")
    wait_until(
        lambda: dirty_pages(stack) < DIRTY_PAGES_LEFT_MAX, "the books are on the disk", SETTLE_SECONDS_MAX
    )
    for setting in ("io_capacity", "max_dirty_pages_pct_lwm", "max_dirty_pages_pct"):
        stack.sql(f"SET GLOBAL innodb_{setting} = DEFAULT")


def dirty_pages(stack: ProcfileStack) -> int:
    return int(stack.sql("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'")[0][1])


def cost_per_webhook(
    small: ProcfileStack, large: ProcfileStack, size: Size, say: Callable[[str], None]
) -> Measurement:
    """Microseconds. Of the large books, `verification` says in the end whether they are still right."""
    costs: dict[ProcfileStack, list[float]] = {large: [], small: []}
    for number in range(1, size.rounds + 1):
        for stack, values in costs.items():
            with connected_to(stack):
                values.append(post(size.webhooks))
        with connected_to(small):
            require_consistent_ledger()
        told = ", ".join(f"{values[-1]:.0f}" for values in costs.values())
        say(f"round {number} of {size.rounds}: a webhook costs {told} µs in the large and the small books")
    what = "cost per webhook, against books of ten thousand lines"
    return Measurement(MEASURE, what, "µs", costs[large], costs[small], at_most(COST_RATIO_MAX))


def post(webhooks: int) -> float:
    """Microseconds for each; by apply_batch in this process."""
    enqueue(webhooks, organizations=POSTED_TO, first=FIRST_OF_THE_OTHERS)
    begun = time.perf_counter()
    while apply_batch(settings.BATCH_SIZE_MAX):
        pass
    return 1e6 * (time.perf_counter() - begun) / webhooks


def reads(size: Size, say: Callable[[str], None]) -> Iterator[Measurement]:
    """By Django's test client: without an HTTP server, whose cost would hide a difference."""
    client = Client(HTTP_HOST="localhost")
    for name in ("balance", "balance/history"):
        path = f"/api/organizations/{{}}/{name}/"
        hot, quiet = path.format(inn_of_organization(HOT)), path.format(inn_of_organization(QUIET))
        read(client, hot, quiet)
        ours, theirs = zip(*(read(client, hot, quiet) for _ in range(size.rounds)), strict=True)
        say(f"{name}: {ours[0]:.2f} ms with the most lines, {theirs[0]:.2f} ms with a hundred")
        what = f"{name.rpartition('/')[2]} of the organization with the most lines, against a hundred"
        yield Measurement(MEASURE, what, "ms", ours, theirs, at_most(READS_RATIO_MAX))


def read(client: Client, *paths: str) -> list[float]:
    """Milliseconds of one answer of each, on average; they take turns, as a round is over in a moment."""
    seconds = dict.fromkeys(paths, 0.0)
    for _ in range(READS):
        for path in paths:
            begun = time.perf_counter()
            if client.get(path).status_code != 200:
                raise InvalidRun(f"{path} was not answered 200")
            seconds[path] += time.perf_counter() - begun
    return [1000 * spent / READS for spent in seconds.values()]


def pages(size: Size, say: Callable[[str], None]) -> Iterator[Measurement]:
    """Every list of the admin: its first and its last page, each of its filters, and searches."""
    client = Client(HTTP_HOST="localhost")
    client.force_login(get_user_model().objects.create_superuser("bench"))
    client.get(reverse("admin:index"))
    seconds: dict[str, float] = {}
    rows = {}
    for path in admin_paths(client):
        rows[path] = count_rows_read(partial(open_page, client, path, seconds))
    slowest, greediest = max(seconds, key=seconds.__getitem__), max(rows, key=rows.__getitem__)
    say(f"of {len(rows)} pages the slowest is {slowest}, {seconds[slowest]:.3f} s")
    say(f"most is read by {greediest}, {rows[greediest]} rows")
    slow, greedy = list(seconds.values()), list(rows.values())
    yield Measurement(
        MEASURE, "the slowest page of the admin's lists", "s", [max(slow)], bound=at_most(PAGE_SECONDS_MAX)
    )
    yield Measurement(
        MEASURE,
        "rows read for one of them, at most",
        "rows",
        [max(greedy)],
        bound=at_most(ROWS_READ_MAX + LOOKS_AT_FAILED * size.trouble),
    )


def open_page(client: Client, path: str, seconds: dict[str, float]) -> None:
    begun = time.perf_counter()
    client.get(path)
    seconds[path] = time.perf_counter() - begun


def admin_paths(client: Client) -> Iterator[str]:
    operation_ids = [
        str(row.operation_id) for row in (Payment.objects.earliest("id"), Webhook.objects.latest("id"))
    ]
    searches = [*operation_ids, inn_of_organization(HOT), inn_of_organization(QUIET), "7" * 10]
    for model, its_admin in admin.site._registry.items():  # noqa: SLF001 Django asks itself this way
        path = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        page = client.get(path)
        if page.status_code != 200:
            raise InvalidRun(f"{path} was answered {page.status_code}")
        changes = page.context_data["cl"]  # type: ignore[index] # a TemplateResponse has it
        yield path
        yield f"{path}?p={changes.paginator.num_pages}"
        for text in searches if its_admin.search_fields else ():
            yield f"{path}?q={text}"
        for each in changes.filter_specs:
            for choice in each.choices(changes):
                yield path + choice["query_string"]


def sweeps(size: Size, say: Callable[[str], None]) -> Iterator[Measurement]:
    yield sweeping("with an empty queue", size, say)
    enqueue(size.backlog, organizations=POSTED_TO, first=FIRST_OF_THE_OTHERS)
    yield sweeping(f"with {size.backlog} webhooks that have just arrived", size, say)


def sweeping(how: str, size: Size, say: Callable[[str], None]) -> Measurement:
    rounds = []
    for _ in range(size.rounds):
        begun = time.perf_counter()
        sweep()
        rounds.append(time.perf_counter() - begun)
    say(f"a sweep {how} takes {max(rounds):.3f} s")
    return Measurement(MEASURE, f"a sweep {how}", "s", rounds, bound=at_most(settings.SWEEP_INTERVAL_SECONDS))


def verification(stack: ProcfileStack, say: Callable[[str], None]) -> Iterator[Measurement]:
    """The command, in a process of its own. Raises InvalidRun unless it is green."""
    command = [sys.executable, "manage.py", "verify_ledger", "--json"]
    process = subprocess.Popen(command, cwd=ROOT, env=stack.environment, stdout=subprocess.PIPE)
    with process:
        assert process.stdout  # as asked for
        told = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)  # tells the highest memory, as nothing else does
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise InvalidRun(f"verify_ledger: {told.decode()}")
    figures = json.loads(told)
    say(f"verify_ledger: {told.decode().strip()}, {usage.ru_maxrss / 1024:.0f} MiB")
    yield Measurement(MEASURE, "verify_ledger", "rows/s", [figures["rows_per_second"]])
    memory = usage.ru_maxrss / 1024
    yield Measurement(MEASURE, "verify_ledger's memory", "MiB", [memory], bound=at_most(VERIFY_MIB_MAX))
