from importlib import import_module

from django.apps import AppConfig


class FaultsConfig(AppConfig):
    name = "faults"

    def ready(self) -> None:
        # Only now: what it wraps imports models, which aren't there while this module is loaded.
        import_module("faults.failpoints").install()
