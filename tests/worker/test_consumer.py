"""The worker's consumer on RabbitMQ; the fault scenario rabbitmq_first_node_killed runs it."""

from celery.utils.quorum_queues import detect_quorum_queues
from celery.worker.consumer import Consumer as CeleryConsumer

from tests.markers import sqlite_run_only
from worker.celery import app
from worker.consumer import UNUSED

pytestmark = sqlite_run_only


def test_worker_with_quorum_queues_does_not_wait_for_servers_that_are_down() -> None:
    assert detect_quorum_queues(app, "amqp")[0]
    consumer = app.subclass_with_self(app.conf.worker_consumer)

    assert consumer.Blueprint.default_steps == [
        step for step in CeleryConsumer.Blueprint.default_steps if step != UNUSED
    ]
    assert UNUSED in CeleryConsumer.Blueprint.default_steps
