"""A rate limit for log lines that a stranger can cause."""

import threading
import time
from collections.abc import Hashable

EVERY_SECONDS = 10.0  # of each key, in each process


class LogThrottle:
    """At most one line of each key per EVERY_SECONDS. Keys are constants of the code, so they are few."""

    def __init__(self) -> None:
        self._logged: dict[Hashable, tuple[float, int]] = {}  # when, and how many were suppressed since
        self._lock = threading.Lock()

    def suppressed(self, key: Hashable) -> int | None:
        """Return how many lines of `key` were suppressed since its last one; None: suppress this one, too."""
        now = time.monotonic()
        with self._lock:
            last, count = self._logged.get(key, (now - EVERY_SECONDS, 0))
            is_due = now - last >= EVERY_SECONDS
            self._logged[key] = (now, 0) if is_due else (last, count + 1)
        return count if is_due else None
