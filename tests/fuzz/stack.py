"""The whole house as in production, for strangers to attack, and what is true of it afterwards."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.fuzz.corpus import HONEST
from tests.harness.launcher_stack import LauncherStack, wait_until
from tests.harness.servers import Redis, lacking

KEPT_MAX = 300  # deliveries of a kind and source
KEPT_BESIDES = 64  # that several threads may keep at the same moment, and numbers that a rollback left out
DRAIN_SECONDS_MAX = 60.0
GROWTH_KIB_MAX = 48 * 1024  # of all web processes together
PRODUCTION = {
    "DEBUG": "0",
    "SECRET_KEY": "only-for-the-hostile-suite-" * 3,
    "WEBHOOK_AUTH": "none",
    "TBANK_BEARER_TOKENS": "only-for-the-hostile-suite",
    "DELIVERY_RECORDS_MAX": str(KEPT_MAX),
    "WORKER_PROCESSES": "1",
}
_FIGURES = """
import json
from django.db.models import Count, Sum
from ingest.models import *
from ledger.models import *
print(json.dumps({
    "kopecks": dict(Organization.objects.values_list("inn", "balance_kopecks")),
    "unfinished": Webhook.objects.exclude(status="applied").count(),
    "kept": {
        f"{model.__name__} of {source}": number
        for model in KeptDelivery.__subclasses__()
        if model is not ConflictingDelivery
        for source, number in model.objects.values_list("source").annotate(Count("id"))
    },
}))
"""


@contextmanager
def production_stack(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[LauncherStack]:
    """With `environment` of other servers, or else on an SQLite file and, where there is one, a Redis."""
    if environment:
        with LauncherStack(folder, **{**PRODUCTION, **environment}) as stack:
            yield stack
    elif lacking("Redis"):
        with LauncherStack(folder, **{**PRODUCTION, "DEBUG": "1"}) as stack:  # what else has no broker
            yield stack
    else:
        database = f"sqlite:///{folder / 'hostile.sqlite3'}"
        with (
            Redis() as redis,
            LauncherStack(folder, DATABASE_URL=database, REDIS_URL=redis.url, **PRODUCTION) as stack,
        ):
            yield stack


def read_stats(stack: LauncherStack) -> dict[str, dict[str, int]]:
    done = stack.manage("shell", "--no-imports", "-c", _FIGURES)
    assert done.returncode == 0, done.stderr
    told: dict[str, dict[str, int]] = json.loads(done.stdout)
    return told


def ledger_violations(stack: LauncherStack, kopecks: int) -> list[str]:
    """Wait until all is posted; what is wrong with the ledger then."""
    latest: dict[str, dict[str, int]] = {}

    def drained() -> bool:
        latest.update(read_stats(stack))
        return not latest["unfinished"]

    wait_until(drained, stack, DRAIN_SECONDS_MAX)
    wrong = []
    if latest["kopecks"] != {HONEST: kopecks}:
        wrong.append(f"the ledger has {latest['kopecks']}, and honest were {kopecks}")
    if any(name.startswith("UnrecognizedDelivery") for name in latest["kept"]):
        wrong.append("unrecognized deliveries are kept, and no attack has shown a bank's proof")
    wrong += [
        f"{count} {name} are kept"
        for name, count in latest["kept"].items()
        if count > KEPT_MAX + KEPT_BESIDES
    ]
    verified = stack.manage("verify_ledger")
    if verified.returncode:
        wrong.append(f"verify_ledger: {verified.stdout}{verified.stderr}")
    if "Traceback" in stack.output():
        output = stack.output()
        wrong.append("a traceback in the log: " + output[output.index("Traceback") :][:3000])
    return wrong


def web_memory_kib(stack: LauncherStack) -> int:
    """Resident, of gunicorn's main process and its children."""
    return sum(_resident_kib(pid) for pid in stack.pids("gunicorn"))


def _resident_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended since it was found
        return 0
    resident = status.partition("VmRSS:")[2].split()
    return int(resident[0]) if resident else 0  # nothing of one that has ended and is only waited for
