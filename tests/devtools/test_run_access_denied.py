"""What the launcher says of a server that is there and doesn't let it in."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.devtools.test_run import complaint

pytestmark = pytest.mark.skipif(
    not os.environ.get("DATABASE_URL", "").startswith("mysql:"), reason="asks a MySQL or MariaDB"
)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"user": "nobody:s3cret"}, "Access denied for user 'nobody'"),
        ({"name": "not_there"}, "Unknown database 'not_there'; create it: CREATE DATABASE not_there"),
    ],
)
def test_database_server_that_refuses(tmp_path: Path, changed: dict[str, str], told: str) -> None:
    url = server_url(**changed)
    assert told in complaint(tmp_path, DATABASE_URL=url)


def server_url(user: str = "root", name: str = "") -> str:
    url = urlsplit(os.environ["DATABASE_URL"])
    return url._replace(
        netloc=f"{user}@{url.netloc.rpartition('@')[2]}", path=f"/{name or url.path[1:]}"
    ).geturl()
