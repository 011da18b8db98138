"""The production settings with a baseline's endpoint, for the Procfile's commands."""

import os

from config.settings import *  # noqa: F403 this is the production settings, plus what follows

BASELINE = f"bench.baselines.{os.environ['BENCH_BASELINE']}"
ROOT_URLCONF = "bench.baselines.urls"
CELERY_IMPORTS = [BASELINE]
CELERY_BEAT_SCHEDULE = {}  # no baseline has an inbox to sweep
