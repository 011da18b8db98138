from importlib import import_module

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from ledger import triggers
from statements.append_only import APPEND_ONLY_TABLES


class StatementsConfig(AppConfig):
    name = "statements"
    verbose_name = _("Bank statements")

    def ready(self) -> None:
        triggers.register(APPEND_ONLY_TABLES)
        # Now that models are loaded: these register kinds of actions, and a rule of retention.
        import_module("statements.actions")
        import_module("statements.retention")
