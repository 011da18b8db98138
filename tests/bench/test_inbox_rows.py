"""Rows that the benchmark inserts without the endpoint are webhooks like the endpoint's."""

from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from bench import inbox_rows
from worker.applying import apply_batch


@pytest.mark.django_db(transaction=True)
def test_inserted_rows_are_applied_and_verified() -> None:
    connection.ensure_connection()
    session: Any = connection.connection
    inbox_rows.insert(session, inbox_rows.make(7), rows_per_statement=3)

    assert apply_batch(10) == 7

    call_command("verify_ledger")
