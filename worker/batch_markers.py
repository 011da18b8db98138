"""Mark which batch a process is applying, in a file of webhook keys that outlives the process."""

import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from django.conf import settings


def marker_path(pid: int | str) -> Path:
    return Path(tempfile.gettempdir(), f"prihod-batch-{pid}-{settings.PORT}")


@contextmanager
def batch_marker(webhook_ids: Collection[int]) -> Iterator[None]:
    """Keep a marker of the webhooks during the block. If it cannot be written, the block runs without one."""
    marker = marker_path(os.getpid())
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW  # other users may write into this folder
    try:
        with suppress(OSError), open(os.open(marker, flags, 0o600), "w") as file:  # noqa: PTH123 no flags
            file.write(" ".join(map(str, webhook_ids)))
        yield
    finally:
        with suppress(OSError):
            marker.unlink()


def dead_batches() -> dict[Path, list[int]]:
    """Return the markers of dead processes of this machine, and the keys of their webhooks."""
    pattern = marker_path("*")
    batches = {}
    for marker in pattern.parent.glob(pattern.name):
        with suppress(OSError, ValueError):
            if not _is_running(int(marker.name.split("-")[2])):
                batches[marker] = list(map(int, marker.read_text().split()))
    return batches


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
