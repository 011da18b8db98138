"""A worker can close its connection to a broker that was lost with unacknowledged messages."""

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from kombu import Connection, Consumer, Queue
from kombu.common import ignore_errors

from tests.harness.servers import Redis, missing_reason

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(missing_reason("Redis") is not None, reason="needs a Redis of its own"),
]


@pytest.fixture
def server() -> Iterator[Redis]:
    with Redis() as server:
        yield server


def test_second_close_after_the_loss_raises_no_attribute_error(server: Redis) -> None:
    connection = Connection(server.url)
    queue, received = Queue("q", routing_key="q"), []
    with connection.Producer() as producer:
        producer.publish("ring", routing_key="q", declare=[queue])
    Consumer(connection, [queue], callbacks=[lambda _, message: received.append(message)]).consume()
    connection.drain_events(timeout=5)
    Consumer(connection.channel(), [Queue("other")]).consume()  # as a worker's, for remote control
    with suppress(socket.timeout):
        connection.drain_events(timeout=0.1)  # both wait for the next message
    assert not received[0].acknowledged
    assert all(channel._in_poll for channel in connection.transport.channels)

    server.kill()
    # As Celery's consumer does when its broker is lost; AttributeError would end the worker.
    connection.collect(socket_timeout=1)
    with ignore_errors(connection):
        connection.close()
