import pytest
from django.db import connection


@pytest.fixture
def sequences(transactional_db: None) -> None:
    """What bench/generator.py makes its rows of."""
    if connection.vendor != "mysql" or not connection.mysql_is_mariadb:
        pytest.skip("only MariaDB has sequences")
