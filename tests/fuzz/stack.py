"""A production-like stack to attack, and the invariants that hold afterwards."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.fuzz.corpus import VALID_INN
from tests.harness.launcher_stack import LauncherStack
from tests.harness.servers import Redis, missing_reason

RECORDS_MAX = 300  # records per kind and source
RECORDS_TOLERANCE = 64  # concurrent inserts, and ids skipped by rollbacks
DRAIN_SECONDS_MAX = 60.0
GROWTH_KIB_MAX = 48 * 1024  # of all web processes together
PRODUCTION = {
    "DEBUG": "0",
    "SECRET_KEY": "only-for-the-fuzz-suite-" * 3,
    "WEBHOOK_AUTH": "none",
    "TBANK_BEARER_TOKENS": "only-for-the-fuzz-suite",
    "DELIVERY_RECORDS_MAX": str(RECORDS_MAX),
    "WORKER_PROCESSES": "1",
}
_READ_STATS = """
import json
from django.db.models import Count, Sum
from ingest.models import *
from ledger.models import *
print(json.dumps({
    "kopecks": dict(Organization.objects.values_list("inn", "balance_kopecks")),
    "unfinished": Webhook.objects.exclude(status="applied").count(),
    "records": {
        f"{model.__name__} of {source}": number
        for model in DeliveryRecord.__subclasses__()
        if model is not ConflictingDelivery
        for source, number in model.objects.values_list("source").annotate(Count("id"))
    },
}))
"""


@contextmanager
def production_stack(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[LauncherStack]:
    """Start the stack on the servers in `environment`, else on an SQLite file and a Redis if installed."""
    if environment:
        with LauncherStack(folder, **{**PRODUCTION, **environment}) as stack:
            yield stack
    elif missing_reason("Redis"):
        # Only development runs without a broker.
        with LauncherStack(folder, **{**PRODUCTION, "DEBUG": "1"}) as stack:
            yield stack
    else:
        database = f"sqlite:///{folder / 'fuzz.sqlite3'}"
        with (
            Redis() as redis,
            LauncherStack(folder, DATABASE_URL=database, REDIS_URL=redis.url, **PRODUCTION) as stack,
        ):
            yield stack


def read_stats(stack: LauncherStack) -> dict[str, dict[str, int]]:
    done = stack.manage("shell", "--no-imports", "-c", _READ_STATS)
    assert done.returncode == 0, done.stderr
    stats: dict[str, dict[str, int]] = json.loads(done.stdout)
    return stats


def ledger_violations(stack: LauncherStack, kopecks: int) -> list[str]:
    """Wait until all webhooks are applied; return the violations found in ledger, inbox and log."""
    latest: dict[str, dict[str, int]] = {}

    def drained() -> bool:
        latest.update(read_stats(stack))
        return not latest["unfinished"]

    stack.wait_until(drained, seconds=DRAIN_SECONDS_MAX)
    violations = []
    if latest["kopecks"] != {VALID_INN: kopecks}:
        violations.append(f"the ledger has {latest['kopecks']}, valid deliveries were {kopecks}")
    if any(name.startswith("UnrecognizedDelivery") for name in latest["records"]):
        violations.append(
            "unrecognized deliveries are recorded, although no attack carried a bank's credentials"
        )
    violations += [
        f"{count} {name} are recorded"
        for name, count in latest["records"].items()
        if count > RECORDS_MAX + RECORDS_TOLERANCE
    ]
    verified = stack.manage("verify_ledger")
    if verified.returncode:
        violations.append(f"verify_ledger: {verified.stdout}{verified.stderr}")
    if "Traceback" in stack.output():
        output = stack.output()
        violations.append("a traceback in the log: " + output[output.index("Traceback") :][:3000])
    return violations


def web_memory_kib(stack: LauncherStack) -> int:
    """Return the resident memory of gunicorn's main process and its workers."""
    return sum(_resident_kib(pid) for pid in stack.pids("gunicorn"))


def _resident_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return 0
    resident = status.partition("VmRSS:")[2].split()
    return int(resident[0]) if resident else 0  # 0 for a zombie
