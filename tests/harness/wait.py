"""Waiting for what a process of the test does."""

import time
from collections.abc import Callable
from pathlib import Path

POLL_SECONDS = 0.05


def wait_until(what: str, holds: Callable[[], object], log: Path, seconds: float) -> None:
    """Until it holds. Fails after `seconds`, with what the process has logged."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited for {what}:\n{log.read_text()}"
        time.sleep(POLL_SECONDS)
