"""How processes add up what they count for Prometheus. Imported before any metric is made.

Each keeps its counts in files of its own in one folder, and whoever is asked adds them all up, those of the
dead included. Without a folder each process knows only of itself.
"""

import os
from pathlib import Path
from typing import Any

from prometheus_client import values

# The library has chosen already, by whether a variable is there, even an empty one.
values.ValueClass = values.MutexValue
_shared: Any = values.MultiProcessValue  # untyped
_name: str | None = None


def use_directory(path: str) -> Path:
    """Have all metrics that are made from now on kept in the folder `path`. Raises OSError.

    The library takes the folder from PROMETHEUS_MULTIPROC_DIR, so `path` must be what that says.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    values.ValueClass = _shared(_identity)
    return folder


def _identity() -> str:
    """What this process' files are called, asked at each count: a fork makes another process."""
    return _name or str(os.getpid())


def set_process_name(name: str) -> None:
    """Go on with the files of those of this name that ran before. No two may run at the same time.

    For short-lived children: each would leave files of its own otherwise, to be read for ever.
    """
    global _name  # noqa: PLW0603 the process' own
    _name = name
