"""Which batch a process died with: a file has the webhooks' keys as long as the process is at them."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from worker.marks import heartbeat_path


@contextmanager
def batch_marker(webhook_ids: Collection[int]) -> Iterator[None]:
    """Keep a note of the webhooks within the block. Without one, as on a full disk, the work goes on."""
    note = heartbeat_path(f"batch-{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW  # other users may write into this folder
    try:
        with suppress(OSError), open(os.open(note, flags, 0o600), "w") as file:  # noqa: PTH123 it takes no flags
            file.write(" ".join(map(str, webhook_ids)))
        yield
    finally:
        with suppress(OSError):
            note.unlink()


def dead_batches() -> dict[Path, list[int]]:
    """The notes of processes of this machine that died at their batches, and the webhooks' keys."""
    pattern = heartbeat_path("batch-*")
    found = {}
    for note in pattern.parent.glob(pattern.name):
        with suppress(OSError, ValueError):
            if not _is_running(int(note.name.split("-")[2])):
                found[note] = list(map(int, note.read_text().split()))
    return found


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
