from django.apps import AppConfig
from django.core.checks import Tags, register
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _

from ingest.append_only import APPEND_ONLY_TABLES
from ingest.checks import check_webhook_auth
from ledger import triggers


class IngestConfig(AppConfig):
    name = "ingest"
    verbose_name = _("Inbox")

    def ready(self) -> None:
        register(check_webhook_auth, Tags.security)
        triggers.register(APPEND_ONLY_TABLES)
        # By name, now that models are loaded. Raises ImproperlyConfigured, so that no process starts.
        import_string("ingest.banks.registry.check_tenant_restrictions")()
