"""Cost of millions of log entries: posting, reading, verifying, sweeping, and the admin's lists."""

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
from bench.measurements import Measurement, at_most
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
# Holds the large ledger, as on a server that keeps millions of rows; the small ledger gets it, too.
BUFFER_POOL_BYTES = 8 * 1024**3
DIRTY_PAGES_LEFT_MAX, FLUSH_SECONDS_MAX = 100, 300.0
HOT, QUIET, FIRST_OF_THE_OTHERS = 1, 2, 3  # numbers of organizations
POSTED_TO = 100  # of the others
SMALL_LEDGER = [Group(FIRST_OF_THE_OTHERS - 1 + POSTED_TO, 98)]  # ten thousand entries
READS = 100  # a round
READS_RATIO_MAX, COST_RATIO_MAX = 1.2, 1.3
VERIFY_MIB_MAX = 200.0
PAGE_SECONDS_MAX = 1.0
ROWS_READ_MAX = 10_000  # by a page of a list: it counts to 1000, skips up to 1000, and shows 100
# A search by INN, limited to 10 000 failed webhooks, reads each of them through the index; then the keys are
# sorted and looked up, once to be counted and once to be shown.
READS_PER_FAILED_WEBHOOK = 6


@dataclass(frozen=True)
class Size:
    rounds: int
    ledger: Sequence[Group]
    webhooks: int  # a round
    failures: int  # rows of each kind
    backlog: int  # webhooks, while it is swept


QUICK = Size(3, [Group(1, 50_000), Group(1, 100), Group(100, 500)], 2_500, 2_000, 10_000)
FULL = Size(5, [Group(1, 1_000_000), Group(1, 100), Group(1_000, 4_000)], 5_000, 10_000, 100_000)


def measure(quick: bool, log: Callable[[str], None]) -> Iterator[Measurement]:
    size = QUICK if quick else FULL
    with worker_stack() as small, worker_stack() as large:
        for stack, groups in ((small, SMALL_LEDGER), (large, size.ledger)):
            with connected_to(stack):
                fill(stack, groups, log)
        with connected_to(large):
            write_failures(size.failures)
        yield cost_per_webhook(small, large, size, log)
        with connected_to(large):
            yield from reads(size, log)
            yield from pages(size, log)
            yield from sweeps(size, log)
            yield from verification(large, log)


def fill(stack: ProcfileStack, groups: Sequence[Group], log: Callable[[str], None]) -> None:
    stack.sql(f"SET GLOBAL innodb_buffer_pool_size = {BUFFER_POOL_BYTES}")
    started = time.perf_counter()
    fill_ledger(groups)
    entries = sum(group.rows for group in groups)
    flush(stack)
    log(f"{entries:,} entries with payments and webhooks written in {time.perf_counter() - started:.0f} s")


def flush(stack: ProcfileStack) -> None:
    """Make the server write its dirty pages, which it would otherwise do while we measure."""
    stack.sql("SET GLOBAL innodb_io_capacity = 10000")
    stack.sql("SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0.001")
    stack.sql("SET GLOBAL innodb_max_dirty_pages_pct = 0")
    wait_until(
        lambda: dirty_pages(stack) < DIRTY_PAGES_LEFT_MAX, "the ledger is on the disk", FLUSH_SECONDS_MAX
    )
    for setting in ("io_capacity", "max_dirty_pages_pct_lwm", "max_dirty_pages_pct"):
        stack.sql(f"SET GLOBAL innodb_{setting} = DEFAULT")


def dirty_pages(stack: ProcfileStack) -> int:
    return int(stack.sql("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'")[0][1])


def cost_per_webhook(
    small: ProcfileStack, large: ProcfileStack, size: Size, log: Callable[[str], None]
) -> Measurement:
    """Return the microseconds per webhook. `verification` verifies the large ledger in the end."""
    costs: dict[ProcfileStack, list[float]] = {large: [], small: []}
    for number in range(1, size.rounds + 1):
        for stack, values in costs.items():
            with connected_to(stack):
                values.append(post(size.webhooks))
        with connected_to(small):
            require_consistent_ledger()
        results = ", ".join(f"{values[-1]:.0f}" for values in costs.values())
        log(f"round {number} of {size.rounds}: a webhook costs {results} µs in the large and small ledger")
    name = "cost per webhook, against a ledger of ten thousand entries"
    return Measurement(MEASURE, name, "µs", costs[large], costs[small], at_most(COST_RATIO_MAX))


def post(webhooks: int) -> float:
    """Return the microseconds per webhook of apply_batch in this process."""
    enqueue(webhooks, organizations=POSTED_TO, first=FIRST_OF_THE_OTHERS)
    started = time.perf_counter()
    while apply_batch(settings.BATCH_SIZE_MAX):
        pass
    return 1e6 * (time.perf_counter() - started) / webhooks


def reads(size: Size, log: Callable[[str], None]) -> Iterator[Measurement]:
    """Compare reads with Django's test client, since the cost of an HTTP server would hide a difference."""
    client = Client(HTTP_HOST="localhost")
    for path_name in ("balance", "balance/history"):
        path = f"/api/organizations/{{}}/{path_name}/"
        hot, quiet = path.format(inn_of_organization(HOT)), path.format(inn_of_organization(QUIET))
        read(client, hot, quiet)
        values, baseline = zip(*(read(client, hot, quiet) for _ in range(size.rounds)), strict=True)
        log(f"{path_name}: {values[0]:.2f} ms with the most entries, {baseline[0]:.2f} ms with a hundred")
        what = path_name.rpartition("/")[2]
        name = f"{what} of the organization with the most entries, against a hundred"
        yield Measurement(MEASURE, name, "ms", values, baseline, at_most(READS_RATIO_MAX))


def read(client: Client, *paths: str) -> list[float]:
    """Return the mean milliseconds of each path; they alternate, since a round is short."""
    seconds = dict.fromkeys(paths, 0.0)
    for _ in range(READS):
        for path in paths:
            started = time.perf_counter()
            if client.get(path).status_code != 200:
                raise InvalidRun(f"{path} was not answered 200")
            seconds[path] += time.perf_counter() - started
    return [1000 * total / READS for total in seconds.values()]


def pages(size: Size, log: Callable[[str], None]) -> Iterator[Measurement]:
    """Measure every list of the admin: its first and its last page, each of its filters, and searches."""
    client = Client(HTTP_HOST="localhost")
    client.force_login(get_user_model().objects.create_superuser("bench"))
    client.get(reverse("admin:index"))
    seconds: dict[str, float] = {}
    rows = {}
    for path in admin_paths(client):
        rows[path] = count_rows_read(partial(open_page, client, path, seconds))
    slowest, largest = max(seconds, key=seconds.__getitem__), max(rows, key=rows.__getitem__)
    log(f"of {len(rows)} pages the slowest is {slowest}, {seconds[slowest]:.3f} s")
    log(f"the most rows are read by {largest}, {rows[largest]}")
    bound = at_most(PAGE_SECONDS_MAX)
    yield Measurement(MEASURE, "the slowest page of the admin's lists", "s", [seconds[slowest]], bound=bound)
    rows_max = ROWS_READ_MAX + READS_PER_FAILED_WEBHOOK * size.failures
    yield Measurement(
        MEASURE, "the most rows read for one of them", "rows", [rows[largest]], bound=at_most(rows_max)
    )


def open_page(client: Client, path: str, seconds: dict[str, float]) -> None:
    started = time.perf_counter()
    client.get(path)
    seconds[path] = time.perf_counter() - started


def admin_paths(client: Client) -> Iterator[str]:
    operation_ids = [
        str(row.operation_id) for row in (Payment.objects.earliest("id"), Webhook.objects.latest("id"))
    ]
    searches = [*operation_ids, inn_of_organization(HOT), inn_of_organization(QUIET), "7" * 10]
    for model, model_admin in admin.site._registry.items():  # noqa: SLF001 as Django itself does
        path = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        page = client.get(path)
        if page.status_code != 200:
            raise InvalidRun(f"{path} was answered {page.status_code}")
        changes = page.context_data["cl"]  # type: ignore[index] # a TemplateResponse has it
        yield path
        yield f"{path}?p={changes.paginator.num_pages}"
        for text in searches if model_admin.search_fields else ():
            yield f"{path}?q={text}"
        for each in changes.filter_specs:
            for choice in each.choices(changes):
                yield path + choice["query_string"]


def sweeps(size: Size, log: Callable[[str], None]) -> Iterator[Measurement]:
    yield measure_sweep("with an empty queue", size, log)
    enqueue(size.backlog, organizations=POSTED_TO, first=FIRST_OF_THE_OTHERS)
    yield measure_sweep(f"with {size.backlog} webhooks that have just arrived", size, log)


def measure_sweep(condition: str, size: Size, log: Callable[[str], None]) -> Measurement:
    rounds = []
    for _ in range(size.rounds):
        started = time.perf_counter()
        sweep()
        rounds.append(time.perf_counter() - started)
    log(f"a sweep {condition} takes {max(rounds):.3f} s")
    bound = at_most(settings.SWEEP_INTERVAL_SECONDS)
    return Measurement(MEASURE, f"a sweep {condition}", "s", rounds, bound=bound)


def verification(stack: ProcfileStack, log: Callable[[str], None]) -> Iterator[Measurement]:
    """Run the command in a process of its own. Raise InvalidRun if it finds drift."""
    command = [sys.executable, "manage.py", "verify_ledger", "--json"]
    process = subprocess.Popen(command, cwd=ROOT, env=stack.environment, stdout=subprocess.PIPE)
    with process:
        assert process.stdout  # as asked for
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)  # the only way to its peak memory
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise InvalidRun(f"verify_ledger: {output.decode()}")
    memory = usage.ru_maxrss / 1024
    log(f"verify_ledger: {output.decode().strip()}, {memory:.0f} MiB")
    yield Measurement(MEASURE, "verify_ledger", "rows/s", [json.loads(output)["rows_per_second"]])
    yield Measurement(MEASURE, "verify_ledger's memory", "MiB", [memory], bound=at_most(VERIFY_MIB_MAX))
