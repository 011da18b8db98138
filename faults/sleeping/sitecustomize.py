# ruff: noqa: INP001 Python looks for this name in a folder, not in a package
"""Python loads this first of all where faults/clock.py has put its folder on PYTHONPATH.

libfaketime has clock_nanosleep, which time.sleep is made of, fail with EINVAL. Celery and kombu take
`sleep` out of `time` as they are imported, so later would be too late for them.
"""

import select
import time


def sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


time.sleep = sleep
