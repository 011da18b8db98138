"""Posting speed of one worker process, against bare INSERTs of the same rows and a transaction per task."""

# Prihod is worker.applying.apply_batch in a loop in this process, which is what a worker process does. A
# transaction per task is measured twice: called in a loop, without the cost of a broker, which favours it;
# and with a message for each task, through Redis to a real worker of one process.

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
from bench.measurements import Measurement, at_least
from ingest.models import Webhook
from tests.harness.procfile_stack import ProcfileStack
from tests.harness.wait import wait_until
from worker.applying import apply_batch

MEASURE = "posting"
WORKER = "worker1"
BASELINE = {"DJANGO_SETTINGS_MODULE": "bench.baselines.settings", "BENCH_BASELINE": "message_per_webhook"}
PRIHOD, BARE, CALLED, SENT = (
    "prihod",
    "bare INSERTs",
    "a transaction per task",
    "a message and a transaction per task",
)
RATIOS_MIN = {  # by number of organizations and baseline
    (1, BARE): 0.6,
    (1, CALLED): 30.0,
    (1, SENT): 30.0,
    (500, BARE): 0.5,
    (500, CALLED): 25.0,
}


@dataclass(frozen=True)
class Size:
    rounds: int
    webhooks: int  # a round, for Prihod and for bare INSERTs
    tasks: int  # a round


QUICK, FULL = Size(2, 5_000, 100), Size(4, 10_000, 500)


def measure(quick: bool, log: Callable[[str], None]) -> Iterator[Measurement]:
    size = QUICK if quick else FULL
    for organizations in (1, 500):
        yield from compare(size, organizations, log)


def compare(size: Size, organizations: int, log: Callable[[str], None]) -> Iterator[Measurement]:
    """Yield the ratios from interleaved rounds on one database, whose ledger is verified after each round."""
    with worker_stack(environment=BASELINE) as stack:
        runs = {
            PRIHOD: partial(post, size.webhooks, organizations),
            BARE: partial(insert_bare, size.webhooks, organizations),
            CALLED: partial(call_tasks, size.tasks, organizations),
            SENT: partial(send_tasks, stack, size.tasks, organizations),
        }
        if (organizations, SENT) not in RATIOS_MIN:  # a broker costs the same for any number of organizations
            del runs[SENT]
        speeds: dict[str, list[float]] = {name: [] for name in runs}
        post(max(organizations, settings.BATCH_SIZE_MAX), organizations)  # creates them, and warms up
        for number in range(1, size.rounds + 1):
            for name, run in runs.items():
                speeds[name].append(run())
            require_consistent_ledger()
            results = ", ".join(f"{name} {values[-1]:.0f}/s" for name, values in speeds.items())
            log(f"{in_words(organizations)}, round {number} of {size.rounds}: {results}")
    values = speeds.pop(PRIHOD)
    for name, baseline in speeds.items():
        full_name = f"webhooks/s against {name}, {in_words(organizations)}"
        bound = at_least(RATIOS_MIN[organizations, name])
        yield Measurement(MEASURE, full_name, "webhooks/s", values, baseline, bound)


def in_words(organizations: int) -> str:
    return "one organization" if organizations == 1 else f"{organizations} organizations"


def post(webhooks: int, organizations: int) -> float:
    enqueue(webhooks, organizations=organizations)
    started = time.perf_counter()
    while apply_batch(settings.BATCH_SIZE_MAX):
        pass
    return webhooks / (time.perf_counter() - started)


def insert_bare(webhooks: int, organizations: int) -> float:
    enqueue(webhooks, organizations=organizations)
    rows = bare_insert.prepare()
    started = time.perf_counter()
    bare_insert.insert(rows)
    seconds = time.perf_counter() - started
    bare_insert.update_balances(rows)
    return webhooks / seconds


def call_tasks(webhooks: int, organizations: int) -> float:
    enqueue(webhooks, organizations=organizations)
    queued = list(Webhook.objects.queued().values_list("pk", "payer_inn"))
    started = time.perf_counter()
    for webhook_id, inn in queued:
        message_per_webhook.apply(webhook_id, inn)
    return webhooks / (time.perf_counter() - started)


def send_tasks(stack: ProcfileStack, webhooks: int, organizations: int) -> float:
    """Send all messages before the worker starts; return its speed by the applied_at that it wrote."""
    enqueue(webhooks, organizations=organizations)
    queued = list(Webhook.objects.queued().values_list("pk", "payer_inn"))
    with Celery(broker=stack.broker.url, set_as_current=False) as app:
        for arguments in queued:
            app.send_task(message_per_webhook.apply.name, arguments)
    stack.start(WORKER)
    wait_until(lambda: not Webhook.objects.queued().exists(), "the tasks are done")
    stack[WORKER].send(signal.SIGTERM)
    stack[WORKER].wait()
    applied = Webhook.objects.filter(pk__gte=queued[0][0]).aggregate(
        first=Min("applied_at"), last=Max("applied_at")
    )
    seconds: float = (applied["last"] - applied["first"]).total_seconds()
    return (webhooks - 1) / seconds
