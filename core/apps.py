import gc

from django.apps import AppConfig
from django.db.models import BigAutoField, IntegerField

from core.db.lookups import InLiterals


class CoreConfig(AppConfig):
    name = "core"

    def ready(self) -> None:
        for field in (BigAutoField, IntegerField):
            field.register_lookup(InLiterals)
        # config.settings disables garbage collection. All models and the admin are loaded now, and never
        # searched for garbage, not even at exit; forks go on sharing their memory.
        gc.freeze()
        gc.enable()
