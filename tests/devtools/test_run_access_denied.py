"""Startup errors of a database server that denies access."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.devtools.test_run import startup_error

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(
        not os.environ.get("DATABASE_URL", "").startswith("mysql:"), reason="asks a MySQL or MariaDB"
    ),
]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"user": "stranger:s3cret"}, "Access denied for user 'stranger'"),
        ({"name": "not_there"}, "Unknown database 'not_there'; create it: CREATE DATABASE not_there"),
    ],
)
def test_database_server_denying_access(tmp_path: Path, changed: dict[str, str], message: str) -> None:
    url = server_url(**changed)
    assert message in startup_error(tmp_path, DATABASE_URL=url)


def server_url(user: str = "root", name: str = "") -> str:
    url = urlsplit(os.environ["DATABASE_URL"])
    return url._replace(
        netloc=f"{user}@{url.netloc.rpartition('@')[2]}", path=f"/{name or url.path[1:]}"
    ).geturl()
