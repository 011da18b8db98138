"""How fast one worker process posts, against bare INSERTs of the same rows and a transaction per task."""

# Ours is worker.applying.apply_batch in a loop in this process: what a worker's process does all of its time.
# A transaction per task is measured twice: called in a loop, without anything that a broker costs, which
# favours it; and with a message for each, through Redis to a real worker of one process.

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from celery import Celery
from django.conf import settings
from django.db.models import Max, Min

from bench.baselines import bare_insert, message_per_webhook
from bench.database import require_consistent_ledger, worker_stack
from bench.generator import enqueue
from bench.measurements import Bound, Measurement
from ingest.models import Webhook
from tests.harness.procfile_stack import ProcfileStack
from tests.harness.wait import wait_until
from worker.applying import apply_batch

WORKER = "worker1"
PEER = {"DJANGO_SETTINGS_MODULE": "bench.baselines.settings", "BENCH_BASELINE": "message_per_webhook"}
OURS, BARE, CALLED, SENT = (
    "ours",
    "bare INSERTs",
    "a transaction per task",
    "a message and a transaction per task",
)
AT_LEAST = {  # times as fast, with so many organizations
    (1, BARE): 0.6,
    (1, CALLED): 30.0,
    (1, SENT): 30.0,
    (500, BARE): 0.5,
    (500, CALLED): 25.0,
}


@dataclass(frozen=True)
class Size:
    rounds: int
    webhooks: int  # a round, for us and for bare INSERTs
    tasks: int  # a round


QUICK, FULL = Size(2, 5_000, 100), Size(4, 10_000, 500)


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Measurement]:
    size = QUICK if quick else FULL
    for organizations in (1, 500):
        yield from compare(size, organizations, say)


def compare(size: Size, organizations: int, say: Callable[[str], None]) -> Iterator[Measurement]:
    """All in interleaved rounds on one database, whose books have to be right after each."""
    with worker_stack(environment=PEER) as stack:
        acts = {
            OURS: partial(post, size.webhooks, organizations),
            BARE: partial(insert_bare, size.webhooks, organizations),
            CALLED: partial(call_tasks, size.tasks, organizations),
            SENT: partial(send_tasks, stack, size.tasks, organizations),
        }
        if (organizations, SENT) not in AT_LEAST:  # a broker costs the same, however many there are
            del acts[SENT]
        speeds: dict[str, list[float]] = {name: [] for name in acts}
        post(max(organizations, settings.BATCH_SIZE_MAX), organizations)  # opens them, and warms up
        for number in range(1, size.rounds + 1):
            for name, action in acts.items():
                speeds[name].append(action())
            require_consistent_ledger()
            told = ", ".join(f"{name} {values[-1]:.0f}/s" for name, values in speeds.items())
            say(f"{in_words(organizations)}, round {number} of {size.rounds}: {told}")
    ours = speeds.pop(OURS)
    for name, theirs in speeds.items():
        what = f"webhooks/s against {name}, {in_words(organizations)}"
        bound = Bound(AT_LEAST[organizations, name], at_least=True)
        yield Measurement("post", what, "webhooks/s", ours, theirs, bound)


def in_words(organizations: int) -> str:
    return "one organization" if organizations == 1 else f"{organizations} organizations"


def post(webhooks: int, organizations: int) -> float:
    enqueue(webhooks, organizations=organizations)
    begun = time.perf_counter()
    while apply_batch(settings.BATCH_SIZE_MAX):
        pass
    return webhooks / (time.perf_counter() - begun)


def insert_bare(webhooks: int, organizations: int) -> float:
    enqueue(webhooks, organizations=organizations)
    rows = bare_insert.prepare()
    begun = time.perf_counter()
    bare_insert.insert(rows)
    seconds = time.perf_counter() - begun
    bare_insert.settle(rows)
    return webhooks / seconds


def call_tasks(webhooks: int, organizations: int) -> float:
    enqueue(webhooks, organizations=organizations)
    queued = list(Webhook.objects.queued().values_list("pk", "payer_inn"))
    begun = time.perf_counter()
    for webhook_id, inn in queued:
        message_per_webhook.apply(webhook_id, inn)
    return webhooks / (time.perf_counter() - begun)


def send_tasks(stack: ProcfileStack, webhooks: int, organizations: int) -> float:
    """All are sent before the worker starts, and its own clock says when it was done with each."""
    enqueue(webhooks, organizations=organizations)
    queued = list(Webhook.objects.queued().values_list("pk", "payer_inn"))
    with Celery(broker=stack.broker.url, set_as_current=False) as app:
        for task in queued:
            app.send_task(message_per_webhook.apply.name, task)
    stack.start(WORKER)
    wait_until(lambda: not Webhook.objects.queued().exists(), "the tasks are done")
    stack[WORKER].send(signal.SIGTERM)
    stack[WORKER].wait()
    done = Webhook.objects.filter(pk__gte=queued[0][0]).aggregate(
        first=Min("applied_at"), last=Max("applied_at")
    )
    seconds: float = (done["last"] - done["first"]).total_seconds()
    return (webhooks - 1) / seconds
