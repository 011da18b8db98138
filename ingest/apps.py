from django.apps import AppConfig
from django.core.checks import Tags, register
from django.utils.translation import gettext_lazy as _

from ingest.checks import check_doors
from ingest.guarding import GUARDED
from ledger import triggers


class IngestConfig(AppConfig):
    name = "ingest"
    verbose_name = _("Inbox")

    def ready(self) -> None:
        register(check_doors, Tags.security)
        triggers.guard(GUARDED)
