"""Failpoints between the steps of our code and poison payments, in the production processes.

The production code contains none of this: faults/settings.py makes Django load it, and it wraps the functions
on both sides of a step. The nemesis arms a failpoint by a file in FAULTS_FOLDER. The first process that
reaches the failpoint removes the file and acts, so each file fires once, in one process.
"""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from django.db.models import QuerySet

from faults import seeded_bug_code
from ingest import doorbell, group_commit, operator_actions, version_corrections
from ledger import corrections, posting
from statements import line_posting
from worker import applying, claiming, retries

FOLDER = Path(os.environ["FAULTS_FOLDER"])
POISON = "POISON-"
FIXED = FOLDER / "fixed"


class InjectedError(Exception):
    """Raised by a failpoint."""


def _raise() -> None:
    raise InjectedError("armed by the nemesis")


ACTIONS: dict[str, Callable[[], object]] = {
    "raise": _raise,
    "exit": lambda: os._exit(1),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}
# Step, module, function, and whether the failpoint is before or after the call.
FAILPOINTS: list[tuple[str, Any, str, str]] = [
    ("stored", group_commit, "store_batch", "after"),  # committed; not rung, no response
    ("rung", doorbell, "ring", "after"),  # no response
    ("locked", claiming, "try_lock", "after"),
    ("claimed", claiming, "_lock_webhooks", "after"),
    ("marked", applying, "_mark_applied", "after"),  # not posted
    ("logged", posting, "_update_balances", "before"),
    ("posted", applying, "post", "after"),  # not committed
    ("applied", applying, "apply_batch", "after"),  # committed; the message is not acknowledged
    ("begun", retries, "begin_attempts", "after"),  # the attempt is counted
    ("applied-individually", applying, "apply_ids", "after"),
    # Of an operator action's chunk, which corrects one payment:
    ("chunk", operator_actions, "_run_chunk", "before"),
    ("reversed", posting, "reverse", "after"),  # not replaced
    ("replaced", posting, "replace", "after"),  # in the savepoint still
    ("corrected", corrections, "correct", "after"),  # the action's item is not marked
    ("item-marked", operator_actions, "_mark", "after"),  # not committed
    ("chunk-committed", operator_actions, "_run_chunk", "after"),  # the next chunk has not begun
    ("lines-posted", line_posting, "_post", "after"),  # of a chunk of lines; not committed
    # Of a version of an operation, which corrects one payment:
    ("version-begun", version_corrections, "_apply", "before"),
    ("version-corrected", version_corrections, "_correct", "after"),  # its outcome is not recorded
    ("version-recorded", version_corrections, "_record", "after"),  # not committed
    ("version-applied", version_corrections, "_apply", "after"),
]


def install() -> None:
    for step, module, name, side in FAILPOINTS:
        _wrap(module, name, before=step if side == "before" else "", after=step if side == "after" else "")
    _poison()
    seeded_bug_code.install(os.environ["FAULTS_SEEDED_BUG"])


def _wrap(module: Any, name: str, *, before: str, after: str) -> None:
    wrapped = getattr(module, name)

    def wrapper(*arguments: Any, **keywords: Any) -> Any:
        _fire(before)
        result = wrapped(*arguments, **keywords)
        _fire(after)
        return result

    setattr(module, name, wrapper)


def _fire(step: str) -> None:
    for name, action in ACTIONS.items():
        if step and _claim_file(FOLDER / f"{step}.{name}"):
            action()


def _claim_file(file: Path) -> bool:
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True


def _poison() -> None:
    post = applying.post

    def post_unless_poison(source: QuerySet[Any], organizations: Mapping[str, int]) -> None:
        poison = source.filter(document_number__startswith=POISON)
        if poison and not FIXED.exists():
            ACTIONS["exit" if poison.filter(document_number__contains="KILL") else "raise"]()
        post(source, organizations)

    applying.post = post_unless_poison
