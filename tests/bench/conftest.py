import pytest
from django.db import connection


@pytest.fixture
def sequences(transactional_db: None) -> None:
    """Skip unless the database has sequences, which bench/generator.py needs."""
    if connection.vendor != "mysql" or not connection.mysql_is_mariadb:
        pytest.skip("only MariaDB has sequences")
