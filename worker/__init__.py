# Loaded with Django, so that every process that publishes uses this app's broker.
from worker.celery import app

__all__ = ["app"]
