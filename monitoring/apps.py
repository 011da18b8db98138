from celery.signals import beat_init, worker_ready
from django.apps import AppConfig
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _


class MonitoringConfig(AppConfig):
    name = "monitoring"
    verbose_name = _("Monitoring")

    def ready(self) -> None:
        # Imported here, because models are loaded only now.
        for signal, start in ((worker_ready, "start_in_worker"), (beat_init, "start_in_scheduler")):
            signal.connect(import_string("monitoring.prometheus.serve"), weak=False)
            signal.connect(import_string(f"monitoring.alerts.{start}"), weak=False)
