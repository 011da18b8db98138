"""A ring reaches the second of two brokers while the first refuses connections or hangs."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery

from config.broker import broker_from_url
from config.celery_settings import static_settings
from ingest import doorbell
from tests.harness.servers import Redis, free_port

pytestmark = pytest.mark.process


@pytest.fixture
def second() -> Iterator[Redis]:
    with Redis() as server:
        yield server


def app_with(url: str) -> Celery:
    app = Celery("test", set_as_current=False)
    settings = {**broker_from_url(url, dev_default=Path()), **static_settings(1)}
    app.config_from_object(settings, namespace="CELERY")
    return app


@pytest.mark.parametrize("hangs", [False, True])
def test_ring_reaches_the_second_broker_within_a_second(second: Redis, *, hangs: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # it never accepts
        first = hanging.getsockname()[1] if hangs else free_port()
        app = app_with(f"redis://127.0.0.1:{first},127.0.0.1:{second.port}/0")

        started = time.monotonic()
        with doorbell.broker_connection(app) as connection:
            doorbell.publish(app, connection)

    assert time.monotonic() - started < doorbell.CONNECT_SECONDS_MAX + 0.5
    with redis.Redis.from_url(second.url) as client:
        assert client.llen("celery") == 1


def test_error_comes_within_a_second_if_all_hang() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        address = f"127.0.0.1:{hanging.getsockname()[1]}"
        app = app_with(f"redis://{address},{address},{address}/0")

        started = time.monotonic()
        with pytest.raises(Exception, match="imeout"), doorbell.broker_connection(app) as connection:
            doorbell.publish(app, connection)

    assert time.monotonic() - started < doorbell.CONNECT_SECONDS_MAX + 0.5
