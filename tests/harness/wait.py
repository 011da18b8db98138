"""The one wait loop of tests, fault scenarios and benchmark."""

import time
from collections.abc import Callable

POLL_SECONDS = 0.02


class WaitTimeout(AssertionError):
    """A process or stack did not reach the expected state in time."""


def wait_until(
    condition: Callable[[], object], what: str, seconds: float = 150.0, *, log: Callable[[], str] = str
) -> float:
    """Poll until `condition()` is true; return the seconds waited.

    Raise WaitTimeout after `seconds`. Its message names `what` and ends with the output of `log()`.
    """
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            raise WaitTimeout(f"after {seconds:.0f} s still not: {what}\n{log()}".rstrip())
        time.sleep(POLL_SECONDS)
    return time.monotonic() - start
