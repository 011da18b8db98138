"""A login that RabbitMQ refuses is retried at the next server, as any other failure to connect."""

from typing import Any

import pytest
from amqp.exceptions import AccessRefused, AMQPError, NotAllowed
from celery import Celery
from kombu.exceptions import OperationalError

from ingest.doorbell import broker_connection
from tests.markers import sqlite_run_only
from worker.amqp_transport import Transport

pytestmark = sqlite_run_only
# As RabbitMQ 3.10.8 says it, in a frame of the class connection and the method close.
REASONS = [
    AccessRefused(
        "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.",
        (10, 50),
    ),
    NotAllowed("NOT_ALLOWED - vhost nowhere not found", (10, 40)),
]


@pytest.mark.parametrize("reason", REASONS, ids=["password", "virtual host"])
def test_refused_login_is_tried_at_each_server_and_raises_one_line(
    reason: AMQPError, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    class RefusingConnection:
        def __init__(self, host: str, **_: Any) -> None:
            tried.append(host)

        def connect(self) -> None:
            raise reason

    monkeypatch.setattr(Transport, "Connection", RefusingConnection)
    app = Celery(broker="amqp://u:p@h1//;amqp://u:p@h2//", set_as_current=False)

    with broker_connection(app) as connection, pytest.raises(OperationalError) as error:
        _ = connection.default_channel

    assert tried == ["h1:5672", "h2:5672"]
    assert str(error.value) == reason.reply_text
