from django.apps import AppConfig
from django.core.checks import Tags, register

from ledger.checks import check_database_server


class LedgerConfig(AppConfig):
    name = "ledger"

    def ready(self) -> None:
        register(check_database_server, Tags.database)
