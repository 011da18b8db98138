from celery.signals import beat_init, worker_ready
from django.apps import AppConfig
from django.utils.module_loading import import_string


class MonitoringConfig(AppConfig):
    name = "monitoring"

    def ready(self) -> None:
        serve = import_string("monitoring.exposition.serve")  # now that there are models
        worker_ready.connect(serve, weak=False)
        beat_init.connect(serve, weak=False)
