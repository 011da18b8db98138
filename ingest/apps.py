from django.apps import AppConfig
from django.conf import settings
from django.core.checks import Tags, register
from django.utils.translation import gettext_lazy as _

from ingest.append_only import APPEND_ONLY_TABLES
from ingest.authentication import check_tenant_restriction
from ingest.checks import check_webhook_auth
from ledger import triggers


class IngestConfig(AppConfig):
    name = "ingest"
    verbose_name = _("Inbox")

    def ready(self) -> None:
        register(check_webhook_auth, Tags.security)
        triggers.register(APPEND_ONLY_TABLES)
        # Raises ImproperlyConfigured, as the settings themselves do.
        check_tenant_restriction(settings.TOCHKA_AUTH, settings.TOCHKA_CUSTOMER_CODES, settings.TBANK_AUTH)
