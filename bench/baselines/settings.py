"""The production settings with a baseline's endpoint, for the Procfile's commands and for `wsgi.py`."""

import os

from config.settings import *  # noqa: F403 this is the production settings, plus what follows

BASELINE = f"bench.baselines.{os.environ['BENCH_BASELINE']}"
ROOT_URLCONF = "bench.baselines.urls"
CELERY_IMPORTS = [BASELINE]
CELERY_BEAT_SCHEDULE = {}  # no baseline has an inbox to sweep
MIDDLEWARE = [  # as startproject has them; Prihod's own would cost a baseline more
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
