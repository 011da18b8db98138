"""Tells the workers that the inbox has something, without a request ever touching the broker.

A ring is a message "look at the inbox" and carries no data, so rings may be lost, doubled or
merged: the sweeper finds what nobody rang for.
"""

import os
import threading
import time
from contextlib import suppress
from typing import Any

import structlog
from celery import Celery, current_app
from kombu import Connection

from ingest.metrics import RING_FAILURES, RINGS

log = structlog.get_logger(__name__)

APPLY_TASK = "worker.tasks.apply_received"
OPERATOR_ACTIONS_TASK = "worker.tasks.run_operator_actions"
PAUSE_SECONDS = 0.05  # between two rings; whatever arrives meanwhile shares the next one
PAUSE_AFTER_FAILURE_SECONDS = 1.0
QUEUED_RINGS_MAX = 20  # in each queue; one more would tell nobody anything, and fill its memory
# Kombu's defaults wait for a hung broker without end.
BROKER_OPTIONS = {"max_retries": 0, "socket_timeout": 1, "socket_connect_timeout": 1}


def ring_now(task: str = APPLY_TASK) -> bool:
    """Ring for `task` in this thread, and wait at most some seconds for the broker; whether it was heard."""
    try:
        with current_app.connection_for_write(transport_options=BROKER_OPTIONS) as connection:
            publish(current_app, connection, task)
    except Exception as fault:  # noqa: BLE001 each transport has errors of its own
        RING_FAILURES.inc()
        log.warning("broker unreachable", error=repr(fault))
        return False
    return True


def queue_length(app: Celery, connection: Connection, queue: str) -> int:
    """How many messages of `queue` nobody has taken yet. Raises what the transport raises."""
    declared: Any = app.amqp.queues[queue](connection.default_channel).queue_declare()
    return int(declared.message_count)


def publish(app: Celery, connection: Connection, task: str = APPLY_TASK) -> None:
    """Ring by this connection, unless enough rings wait in the task's queue. Raises as the transport does."""
    queue = app.amqp.router.route({}, task)["queue"].name
    if queue_length(app, connection, queue) < QUEUED_RINGS_MAX:
        app.send_task(task, connection=connection, retry=False, ignore_result=True)
    RINGS.inc()


class Doorbell:
    """One thread per process; it rings at once when idle, and at most every PAUSE_SECONDS."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._start_over()
        os.register_at_fork(after_in_child=self._start_over)  # threads don't survive a fork

    def _start_over(self) -> None:
        self._wanted = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def ring(self) -> None:
        """Never blocks on the broker and never raises."""
        self._wanted.set()
        if not self._is_running():
            with self._starting:
                if not self._is_running():
                    thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
                    with suppress(RuntimeError):  # no thread to be had: the sweeper finds the webhooks
                        thread.start()
                        self._thread = thread

    def _is_running(self) -> bool:
        """A thread that died, say of a full disk under a Prometheus count, is replaced at the next ring."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        heard = True
        while True:
            try:
                with self._app.connection(transport_options=BROKER_OPTIONS) as connection:
                    while True:
                        self._wanted.wait()
                        self._wanted.clear()
                        publish(self._app, connection)
                        if not heard:
                            log.info("broker reachable again")
                            heard = True
                        time.sleep(PAUSE_SECONDS)
            except Exception as fault:  # noqa: BLE001 whatever the broker does, the inbox is safe without it
                self._wanted.set()
                RING_FAILURES.inc()
                if heard:
                    log.warning("broker unreachable; relying on the sweeper", error=repr(fault))
                    heard = False
                time.sleep(PAUSE_AFTER_FAILURE_SECONDS)


ring = Doorbell(current_app).ring
