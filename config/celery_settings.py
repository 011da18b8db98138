"""Celery's settings that no environment variable changes."""

from typing import Any

from kombu import Queue

# Of RabbitMQ, where a queue of the default type is lost with its node until that is back; others ignore it.
QUORUM = {"x-queue-type": "quorum"}


def static_settings(sweep_interval_seconds: float) -> dict[str, Any]:
    return {
        "CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP": True,
        # One queue per kind of message, so that its length is the number of waiting messages of that kind.
        # Every worker consumes all of them.
        "CELERY_TASK_QUEUES": [
            Queue(name, routing_key=name, queue_arguments=QUORUM)
            for name in ("celery", "attempts", "operator_actions")
        ],
        "CELERY_TASK_ROUTES": {
            "worker.tasks.retry_*": {"queue": "attempts"},
            "worker.tasks.run_operator_actions": {"queue": "operator_actions"},
            "statements.tasks.*": {"queue": "operator_actions"},
        },
        "CELERY_RESULT_BACKEND": "django-db",
        "CELERY_RESULT_EXTENDED": True,
        "CELERY_RESULT_EXPIRES": None,  # results are the dead letters; TASK_RESULT_RETENTION_DAYS prunes them
        "CELERY_WORKER_CONSUMER": "worker.consumer:Consumer",
        "CELERY_WORKER_PREFETCH_MULTIPLIER": 1,
        "CELERY_WORKER_REDIRECT_STDOUTS": False,
        # For attempts that the sweeper runs itself while the broker is unreachable.
        "CELERY_TASK_STORE_EAGER_RESULT": True,
        "CELERY_BEAT_SCHEDULER": "worker.beat_scheduler:InProcessScheduler",  # works without a broker
        "CELERY_BEAT_SCHEDULE": {
            "sweep": {"task": "worker.tasks.sweep", "schedule": sweep_interval_seconds},
            "record throughput": {"task": "monitoring.tasks.record_throughput", "schedule": 20.0},
            "prune": {"task": "worker.tasks.prune", "schedule": 600.0},
            "match": {"task": "statements.tasks.request_matching", "schedule": 10.0},  # if it is due
            "verify": {"task": "worker.tasks.verify", "schedule": 60.0},  # if it is due: VERIFY_AT_HOUR
        },
    }
