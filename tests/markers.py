"""Marks for the databases on which a test runs, beyond what its tier implies (docs/testing.md)."""

import pytest

# A test whose outcome no database changes, such as one of texts and permissions: it runs on SQLite only.
sqlite_run_only = pytest.mark.sqlite_run_only
# A test that starts programs and whose outcome depends on the database; others run on one database.
every_database = pytest.mark.every_database
