"""Reading, importing and matching of bank statements, and the pages of their lines beside many others."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from bench.database import connected_to, worker_stack
from bench.generator import Group, fill_ledger, inn_of_organization
from bench.measurements import Bound, Measurement, at_most
from bench.statement_rows import ORGANIZATIONS, add_account, file_of, fill_lines
from bench.systems import InvalidRun
from statements import buckets
from statements.buckets import Scope
from statements.importing import import_statement
from statements.matching import match
from statements.models import Bucket, OwnAccount, StatementLine
from tests.harness.procfile_stack import ProcfileStack
from tests.harness.servers import ROOT

MEASURE = "reconciliation"
FIRST_DAY, WRITTEN_ON, ONE_DAY = date(2024, 2, 1), date(2024, 3, 1), timedelta(days=1)
READ_SECONDS_MAX, READ_MIB_MAX = 5.0, 200.0
REIMPORT_SECONDS_MAX, MATCH_SECONDS_MAX, PAGE_SECONDS_MAX = 5.0, 30.0, 1.0
# In a process of its own, whose peak memory is that of reading and of what a command has loaded.
READ = """
import json, resource, sys, time
from pathlib import Path
import django
django.setup()
from statements.importing import reading
body = Path(sys.argv[1]).read_bytes()
started = time.perf_counter()
file = reading.read(body)
seconds = time.perf_counter() - started
mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([seconds, mib, file.verdict, len(file.documents)]))
"""


@dataclass(frozen=True)
class Size:
    rounds: int
    documents: int  # a file
    files: int
    credits: int  # of the lines that are there before


QUICK, FULL = Size(1, 5_000, 2, 20_000), Size(3, 50_000, 2, 400_000)


def measure(quick: bool, log: Callable[[str], None]) -> Iterator[Measurement]:
    size = QUICK if quick else FULL
    with worker_stack() as stack, connected_to(stack):
        new = size.documents * size.files
        fill_ledger([Group(ORGANIZATIONS, -(-(size.credits + new) // ORGANIZATIONS))])
        add_account()
        lines = fill_lines(size.credits)
        log(f"{lines:,} lines were written")
        starts = range(size.credits + 1, size.credits + new + 1, size.documents)
        files = [range(start, start + size.documents) for start in starts]
        yield from reading(stack, _bodies(files[:1], WRITTEN_ON)[0], size, log)
        yield from importing(files, log)
        yield from matching(new, log)
        yield from pages(lines + new, log)


def reading(
    stack: ProcfileStack, body: bytes, size: Size, log: Callable[[str], None]
) -> Iterator[Measurement]:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(body)
        rounds = [_read(stack, file.name, size.documents) for _ in range(size.rounds)]
    seconds, mib = zip(*rounds, strict=True)
    log(f"{size.documents:,} documents are read in {min(seconds):.2f} to {max(seconds):.2f} s")
    name = f"to read a file of {size.documents} documents"
    yield _seconds(name, seconds, READ_SECONDS_MAX)
    yield Measurement(MEASURE, "memory of a process that reads it", "MiB", mib, bound=at_most(READ_MIB_MAX))


def _read(stack: ProcfileStack, name: str, documents: int) -> tuple[float, float]:
    command = [sys.executable, "-c", READ, name]
    environment = {**stack.environment, "DJANGO_SETTINGS_MODULE": os.environ["DJANGO_SETTINGS_MODULE"]}
    output = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True).stdout
    seconds, mib, verdict, found = json.loads(output)
    if (verdict, found) != ("ok", documents):
        raise InvalidRun(f"the file was read as {verdict}, with {found} documents")
    return seconds, mib


def importing(files: Sequence[range], log: Callable[[str], None]) -> Iterator[Measurement]:
    """Measure files that are new, the same ones again, and other ones that have the same lines."""
    lines = sum(map(len, files))
    bodies, newer = _bodies(files, WRITTEN_ON), _bodies(files, WRITTEN_ON + ONE_DAY)
    for what, some, new, bound in (
        ("to import {n} lines", bodies, lines, None),
        ("to import the same files again, of {n} lines", bodies, 0, REIMPORT_SECONDS_MAX),
        ("to import newer files of the same {n} lines", newer, 0, None),
    ):
        started = time.perf_counter()
        found = [import_statement(body, "bench.txt") for body in some]
        seconds = time.perf_counter() - started
        name = what.format(n=lines)
        log(f"{name}: {seconds:.2f} s")
        if sum(imported.new_lines for imported in found) != new:
            raise InvalidRun(f"{name}: {found}")
        yield _seconds(name, [seconds], bound)


def _bodies(files: Sequence[range], written_on: date) -> list[bytes]:
    """Return a file of each range; each is of a day of its own, or it would withdraw the other's lines."""
    return [file_of(webhooks, FIRST_DAY + day * ONE_DAY, written_on) for day, webhooks in enumerate(files)]


def matching(new: int, log: Callable[[str], None]) -> Iterator[Measurement]:
    for what, webhooks, bound in (
        ("to match {n} lines with {n} webhooks", new, MATCH_SECONDS_MAX),
        ("to match again, when nothing is new", 0, None),
    ):
        started = time.perf_counter()
        found = match()
        seconds = time.perf_counter() - started
        name = what.format(n=new)
        log(f"{name}: {seconds:.2f} s")
        if found.new_webhooks != webhooks or sum(found.by_rank.values()) != webhooks:
            raise InvalidRun(f"{name}: {found}")
        yield _seconds(name, [seconds], bound)
    if unexplained := buckets.identity(Scope()).unexplained:
        raise InvalidRun(f"{unexplained} kopecks are unexplained")


def pages(lines: int, log: Callable[[str], None]) -> Iterator[Measurement]:
    client = Client(HTTP_HOST="localhost")
    client.force_login(get_user_model().objects.create_superuser("bench"))
    client.get(reverse("admin:index"))
    seconds = {path: _open(client, path) for path in _paths(client)}
    for path in sorted(seconds, key=seconds.__getitem__)[-3:]:
        log(f"{path}: {seconds[path]:.2f} s")
    slowest = max(seconds.values())
    yield _seconds(f"the slowest of the pages beside {lines} lines", [slowest], PAGE_SECONDS_MAX)


def _open(client: Client, path: str) -> float:
    started = time.perf_counter()
    answer = client.get(path)
    if answer.status_code != 200:
        raise InvalidRun(f"{path} was answered {answer.status_code}")
    return time.perf_counter() - started


def _paths(client: Client) -> Iterator[str]:
    """Yield the front page, the calendar, and the lists of lines of a year, of a month and of a day."""
    account = OwnAccount.objects.get().pk
    yield reverse("admin:index")
    yield reverse("admin:statements_ownaccount_change", args=[account])
    for model in ("ownaccount", "bankstatement", "statementline"):
        yield reverse(f"admin:statements_{model}_changelist")
    yield f"{reverse('admin:statements_statementline_changelist')}?q={inn_of_organization(1)}"
    yield reverse("admin:statements_statementline_change", args=[StatementLine.objects.earliest("pk").pk])
    page = reverse("admin:statements_reconciliation")
    yield page
    for first in ("2023-12-31", "2023-12-01", "2023-01-01"):
        days = f"first={first}&last=2023-12-31"
        for bucket in ("", *buckets.LINE_BUCKETS, *buckets.WEBHOOK_BUCKETS):
            yield f"{page}?{days}&bucket={Bucket(bucket).value}"
        yield f"{page}?{days}&account={account}"
        following = _next_page(client, f"{page}?{days}")
        yield following


def _next_page(client: Client, path: str) -> str:
    text: Any = client.get(path).content.decode()
    found = re.search(r'href="\?([^"#]*at=[^"#]*)', text)
    if found is None:
        raise InvalidRun(f"{path} has no further page")
    return f"{path.partition('?')[0]}?{found[1].replace('&amp;', '&')}"


def _seconds(name: str, values: Sequence[float], maximum: float | None) -> Measurement:
    bound: Bound | None = None if maximum is None else at_most(maximum)
    return Measurement(MEASURE, name, "s", values, bound=bound)
