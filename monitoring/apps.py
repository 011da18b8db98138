from celery.signals import beat_init, worker_ready
from django.apps import AppConfig
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _


class MonitoringConfig(AppConfig):
    name = "monitoring"
    verbose_name = _("Monitoring")

    def ready(self) -> None:
        # By name, now that there are models.
        for signal, watch in ((worker_ready, "watch"), (beat_init, "watch_all")):
            signal.connect(import_string("monitoring.prometheus.serve"), weak=False)
            signal.connect(import_string(f"monitoring.alerts.{watch}"), weak=False)
