"""Marks for the databases on which a test runs, beyond what its tier implies (docs/testing.md)."""

import pytest

# A test whose outcome no database changes, such as one of texts and permissions: it runs on SQLite only.
sqlite_run_only = pytest.mark.sqlite_run_only
# A test that starts programs and whose outcome depends on the database; others run on one database. Also the
# exception in a module of sqlite_run_only.
every_database = pytest.mark.every_database
# A test that starts programs and whose outcome depends on what `make run` embeds, that is the broker of files
# and the single worker process: it also runs on SQLite.
embedded_too = pytest.mark.embedded_too
