"""Each row has a text of its own, for the admin's links and its log."""

import pytest
from django.apps import apps

from tests import admin_rows
from tests.admin_client import superuser_client
from tests.markers import sqlite_run_only

OURS = ("api", "ingest", "ledger", "monitoring", "statements", "worker")
pytestmark = [pytest.mark.django_db, sqlite_run_only]


def test_each_row_has_a_text_of_its_own() -> None:
    superuser_client()
    admin_rows.create_one_of_each()
    models = [model for name in OURS for model in apps.get_app_config(name).get_models()]

    rows = [row for model in models if (row := model._default_manager.order_by("pk").first())]

    assert len(rows) > 20
    assert [type(row) for row in rows if not str(row) or "object (" in str(row)] == []
