"""Celery's settings that no environment changes."""

from typing import Any

from kombu import Queue


def static_settings(sweep_interval_seconds: float) -> dict[str, Any]:
    return {
        "CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP": True,
        # Each kind of message has a queue of its own, whose length says how many of that kind wait. A worker
        # consumes all of them.
        "CELERY_TASK_QUEUES": [Queue(name, routing_key=name) for name in ("celery", "attempts", "acts")],
        "CELERY_TASK_ROUTES": {
            "worker.tasks.retry_*": {"queue": "attempts"},
            "worker.tasks.run_operator_actions": {"queue": "acts"},
        },
        "CELERY_RESULT_BACKEND": "django-db",
        "CELERY_RESULT_EXTENDED": True,
        "CELERY_RESULT_EXPIRES": None,  # they are dead letters, and go by TASK_RESULT_RETENTION_DAYS
        "CELERY_WORKER_PREFETCH_MULTIPLIER": 1,
        "CELERY_WORKER_REDIRECT_STDOUTS": False,
        # Of attempts that the sweeper makes itself, for want of a broker.
        "CELERY_TASK_STORE_EAGER_RESULT": True,
        "CELERY_BEAT_SCHEDULER": "worker.beat_scheduler:InProcessScheduler",  # needs no broker
        "CELERY_BEAT_SCHEDULE": {
            "sweep": {"task": "worker.tasks.sweep", "schedule": sweep_interval_seconds},
            "record throughput": {"task": "monitoring.tasks.record_throughput", "schedule": 20.0},
            "prune": {"task": "worker.tasks.prune", "schedule": 600.0},
            "verify": {"task": "worker.tasks.verify", "schedule": 60.0},  # if it is due: VERIFY_AT_HOUR
        },
    }
