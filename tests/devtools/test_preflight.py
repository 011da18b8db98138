import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from devtools import preflight


@pytest.mark.django_db
def test_database_with_migrations_of_another_version_is_refused() -> None:
    MigrationRecorder(connection).record_applied("ingest", "0013_of_another_version")

    with pytest.raises(preflight.StartupError, match=r"ingest\.0013_of_another_version.*DATA_DIR"):
        preflight.migrate()
