from django.apps import AppConfig
from django.core.checks import Tags, register

from ingest.checks import check_doors
from ingest.guarding import GUARDED
from ledger import triggers


class IngestConfig(AppConfig):
    name = "ingest"

    def ready(self) -> None:
        register(check_doors, Tags.security)
        triggers.guard(GUARDED)
