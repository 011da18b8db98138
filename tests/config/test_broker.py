"""REDIS_URL with several servers."""

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from config.broker import broker_from_url
from tests.devtools.test_run import startup_error
from tests.markers import sqlite_run_only

pytestmark = sqlite_run_only


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://:p@h1:6379/0", "redis://:p@h1:6379/0"),
        ("redis://:p@h1,h2:1/0", "redis://:p@h1/0;redis://:p@h2:1/0"),
        ("redis://:p@h1/0;redis://:q@h2/0", "redis://:p@h1/0;redis://:q@h2/0"),
        (
            "rediss://h1,h2/0?ssl_cert_reqs=required",
            "rediss://h1/0?ssl_cert_reqs=required;rediss://h2/0?ssl_cert_reqs=required",
        ),
        ("sentinel://:p@h1,h2:1/2?master_name=m", "sentinel://:p@h1/2;sentinel://:p@h2:1/2"),
        ("amqp://u:p@h1,h2//", "amqp://u:p@h1//;amqp://u:p@h2//"),
    ],
)
def test_hosts_become_a_url_each(url: str, expected: str, tmp_path: Path) -> None:
    assert broker_from_url(url, dev_default=tmp_path)["CELERY_BROKER_URL"] == expected


def test_sentinels_know_the_master_s_name(tmp_path: Path) -> None:
    settings = broker_from_url("sentinel://h1/0?master_name=prihod", dev_default=tmp_path)

    assert settings["CELERY_BROKER_TRANSPORT_OPTIONS"]["master_name"] == "prihod"


@pytest.mark.parametrize("url", ["redis://:secret-word@h1,/0", "redis://:secret-word@[::1,h2/0"])
def test_malformed_list_is_one_line_without_the_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"^REDIS_URL is malformed") as exc:
        broker_from_url(url, dev_default=tmp_path)

    assert "secret-word" not in str(exc.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ampq://u:secret-word@h1,h2//", "REDIS_URL begins with none of"),
        ("amqp://u:secret-word@h1:5672,h2:port//", "REDIS_URL is malformed: a port"),
    ],
)
def test_mistake_in_rabbitmq_s_list_is_one_line_without_the_password(
    url: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"^{message}") as exc:
        broker_from_url(url, dev_default=tmp_path)

    assert "secret-word" not in str(exc.value)


@pytest.mark.process
def test_missing_master_name_is_one_line_at_the_start(tmp_path: Path) -> None:
    assert startup_error(tmp_path, REDIS_URL="sentinel://h1,h2,h3/0").startswith(
        "REDIS_URL names no master of its sentinels"
    )
