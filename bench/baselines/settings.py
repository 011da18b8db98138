"""The production settings with a peer's door, for the Procfile's commands by DJANGO_SETTINGS_MODULE."""

import os

from config.settings import *  # noqa: F403 this is the production settings, plus what follows

PEER = f"bench.baselines.{os.environ['BENCH_BASELINE']}"
ROOT_URLCONF = "bench.baselines.urls"
CELERY_IMPORTS = [PEER]
CELERY_BEAT_SCHEDULE = {}  # no peer has an inbox that would have to be swept
