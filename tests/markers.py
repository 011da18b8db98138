"""What a test is skipped by where another run of the suite has its turn."""

import os

import pytest

sqlite_run_only = pytest.mark.skipif(
    os.environ.get("DATABASE_URL", "").startswith("mysql:"),
    reason="asks no database of the run; has its turn in the run on SQLite",
)
