"""Sharing of Prometheus metrics between processes. Import it before any metric is created.

Each process writes its counts to files of its own in one directory; a scrape sums all files, those of dead
processes included. Without a directory each process reports only its own counts.
"""

import os
from pathlib import Path
from typing import Any

from prometheus_client import values

# The library has already chosen by the mere presence of PROMETHEUS_MULTIPROC_DIR, even if it is empty.
values.ValueClass = values.MutexValue
_multi_process_value: Any = values.MultiProcessValue  # untyped
_process_name: str | None = None


def use_directory(path: str) -> Path:
    """Store all metrics that are created from now on in the directory `path`. Raise OSError.

    The library reads the directory from PROMETHEUS_MULTIPROC_DIR, so `path` must equal that variable.
    """
    directory = Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    values.ValueClass = _multi_process_value(_identifier)
    return directory


def _identifier() -> str:
    """Return the suffix of this process's files; evaluated for each update, because a fork changes it."""
    return _process_name or str(os.getpid())


def set_process_name(name: str) -> None:
    """Continue the files of earlier processes of this name, of which only one may run at a time.

    For short-lived children, which would otherwise each leave files that every scrape has to read.
    """
    global _process_name  # noqa: PLW0603 state of the process
    _process_name = name
