"""Sharing of Prometheus metrics between processes. Import it before any metric is created.

Each process writes its counts to files of its own in one directory; a scrape sums all files, those of dead
processes included. Without a directory each process reports only its own counts.
"""

import atexit
import os
from pathlib import Path
from typing import Any

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

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
    atexit.register(_remove_unused_files, directory)
    return directory


def _remove_unused_files(directory: Path) -> None:
    """Remove this process's files if it counted nothing, as most commands do: each scrape reads all files."""
    read_all: Any = MmapedDict.read_all_values_from_file  # untyped
    files = [file for file in directory.glob(f"*_{os.getpid()}.db") if file.stat().st_size]
    if not any(value for file in files for _, value, _, _ in read_all(file)):
        for file in files:
            file.unlink()


def _identifier() -> str:
    """Return the suffix of this process's files; evaluated for each update, because a fork changes it."""
    return _process_name or str(os.getpid())


def set_process_name(name: str) -> None:
    """Continue the files of earlier processes of this name, of which only one may run at a time.

    For short-lived children, which would otherwise each leave files that every scrape has to read.
    """
    global _process_name  # noqa: PLW0603 state of the process
    _process_name = name
