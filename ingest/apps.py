from django.apps import AppConfig
from django.core.checks import Tags, register

from ingest.checks import check_doors


class IngestConfig(AppConfig):
    name = "ingest"

    def ready(self) -> None:
        register(check_doors, Tags.security)
