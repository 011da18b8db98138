"""Replace time.sleep in a process under libfaketime. Python imports this module first, by PYTHONPATH.

libfaketime makes clock_nanosleep, which time.sleep uses, fail with EINVAL. Celery and kombu import `sleep`
from `time`, so it has to be replaced before them.
"""

import select
import time


def sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


time.sleep = sleep
