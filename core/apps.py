from django.apps import AppConfig
from django.db.models import BigAutoField, IntegerField

from core.db.lookups import InLiterals


class CoreConfig(AppConfig):
    name = "core"

    def ready(self) -> None:
        for field in (BigAutoField, IntegerField):
            field.register_lookup(InLiterals)
