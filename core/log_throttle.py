"""A rate limit for log lines that an unauthenticated client can cause."""

import threading
import time
from collections.abc import Hashable

EVERY_SECONDS = 10.0  # per key and process


class LogThrottle:
    """Allow one log line per key and EVERY_SECONDS. Keys are constants of the code, so there are few."""

    def __init__(self) -> None:
        self._logged: dict[Hashable, tuple[float, int]] = {}  # time of the last line, lines suppressed since
        self._lock = threading.Lock()

    def suppressed(self, key: Hashable) -> int | None:
        """Return the number of lines suppressed since the last one of `key`, or None to suppress this one."""
        now = time.monotonic()
        with self._lock:
            last, count = self._logged.get(key, (now - EVERY_SECONDS, 0))
            is_due = now - last >= EVERY_SECONDS
            self._logged[key] = (now, 0) if is_due else (last, count + 1)
        return count if is_due else None
