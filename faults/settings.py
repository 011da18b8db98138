"""Production settings with faults/failpoints.py installed."""

import os

from config.settings import *  # noqa: F403 this is the production settings, plus what follows
from config.settings import CELERY_BEAT_SCHEDULE, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "faults"]
if os.environ["FAULTS_SEEDED_BUG"] == "sweeper_off":
    del CELERY_BEAT_SCHEDULE["sweep"]
