"""Celery's consumer without its preparation of delayed messages, which Prihod does not send."""

from celery.worker.consumer import Consumer as CeleryConsumer

UNUSED = "celery.worker.consumer.delayed_delivery:DelayedDelivery"


class Consumer(CeleryConsumer):
    """With quorum queues the step waits for each server that is down before it lets messages in."""

    class Blueprint(CeleryConsumer.Blueprint):  # type: ignore[misc, valid-type]  # a variable in its stubs
        default_steps = [step for step in CeleryConsumer.Blueprint.default_steps if step != UNUSED]
