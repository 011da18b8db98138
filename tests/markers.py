"""Skip markers for tests that run once, independent of the suite's databases."""

import os

import pytest

sqlite_run_only = pytest.mark.skipif(
    os.environ.get("DATABASE_URL", "").startswith("mysql:"),
    reason="uses no database of the suite; runs with SQLite only",
)
