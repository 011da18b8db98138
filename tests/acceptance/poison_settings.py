"""Production settings in which some payments fail in the worker or endpoint, with confidential errors."""

from importlib import import_module
from typing import Any

from django.apps import AppConfig
from django.db import DataError

from config.settings import *  # noqa: F403 this is the production settings, plus what follows
from config.settings import DATA_DIR, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.acceptance.poison_settings.PoisonConfig"]
POISON = "POISON-"  # prefix of the document number
BROKEN = "BROKEN-"
REPAIRED = DATA_DIR / "repaired"


class PoisonConfig(AppConfig):
    name = "tests.acceptance.poison_settings"

    def ready(self) -> None:
        applying: Any = import_module("worker.applying")
        post = applying.post

        def post_unless_poison(source: Any, organizations: Any) -> None:
            poison = source.filter(document_number__startswith=POISON).values_list("inn", "document_number")
            if poison and not REPAIRED.exists():
                inn, number = poison[0]
                raise DataError(1366, f"Incorrect string value: '{number}' for column 'x'; INN {inn}")
            post(source, organizations)

        applying.post = post_unless_poison
        inbox: Any = import_module("ingest.inbox")
        store = inbox.store

        def store_unless_broken(terms: Any, *rest: Any) -> Any:
            if terms.document_number.startswith(BROKEN):
                raise RuntimeError(f"broken by {terms.inn}")
            return store(terms, *rest)

        inbox.store = store_unless_broken
