from django.apps import AppConfig

from ingest.guarding import GUARDED
from ledger import triggers


class IngestConfig(AppConfig):
    name = "ingest"

    def ready(self) -> None:
        triggers.guard(GUARDED)
