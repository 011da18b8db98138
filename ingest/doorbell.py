"""Wakes the workers when the inbox has new webhooks, without a request ever waiting for the broker.

A ring is a message without data ("check the inbox"), so rings may be lost, duplicated or merged: the sweeper
finds the webhooks that no ring announced.
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
PAUSE_SECONDS = 0.05  # between two rings; all webhooks that arrive meanwhile share the next ring
PAUSE_AFTER_FAILURE_SECONDS = 1.0
QUEUED_RINGS_MAX = 20  # per queue; more would wake no further worker, and fill the broker's memory
CONNECT_SECONDS_MAX = 1.0  # to any of the broker's servers


def broker_connection(app: Celery) -> Connection:
    """Return a connection, not yet open, that tries each server once, within CONNECT_SECONDS_MAX in all.

    Kombu's defaults wait for a hung broker for ever.
    """
    urls = app.conf.broker_write_url.split(";")
    seconds = CONNECT_SECONDS_MAX / len(urls)
    asks_sentinels = urls[0].startswith("sentinel:")  # one try asks all of them
    return app.connection_for_write(
        connect_timeout=seconds,
        transport_options={
            "max_retries": 0 if asks_sentinels else len(urls) - 1,
            "connect_retries_timeout": CONNECT_SECONDS_MAX,
            **dict.fromkeys(("socket_timeout", "socket_connect_timeout"), seconds),  # of Redis
            **dict.fromkeys(
                ("read_timeout", "write_timeout"), CONNECT_SECONDS_MAX
            ),  # of RabbitMQ, once connected
        },
    )


def ring_now(task: str = APPLY_TASK) -> bool:
    """Ring for `task` in this thread. Return whether the broker took it; this can take some seconds."""
    try:
        with broker_connection(current_app) as connection:
            publish(current_app, connection, task)
    except Exception as exc:  # noqa: BLE001 each transport has its own errors
        RING_FAILURES.inc()
        log.warning("broker unreachable", error=repr(exc))
        return False
    return True


def queue_length(app: Celery, connection: Connection, queue: str) -> int:
    """Return the number of undelivered messages in `queue`. Raise the transport's errors."""
    declared: Any = app.amqp.queues[queue](connection.default_channel).queue_declare()
    return int(declared.message_count)


def publish(app: Celery, connection: Connection, task: str = APPLY_TASK) -> None:
    """Send a ring, unless QUEUED_RINGS_MAX are in the task's queue already. Raise the transport's errors."""
    queue = app.amqp.router.route({}, task)["queue"].name
    if queue_length(app, connection, queue) < QUEUED_RINGS_MAX:
        app.send_task(task, connection=connection, retry=False, ignore_result=True)
    RINGS.inc()


class Doorbell:
    """A background thread per process that rings at once when idle, and at most every PAUSE_SECONDS."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._reset()
        os.register_at_fork(after_in_child=self._reset)  # threads don't survive a fork

    def _reset(self) -> None:
        self._requested = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def ring(self) -> None:
        """Request a ring. Never block on the broker, never raise."""
        if not self._requested.is_set():  # else the ring to come covers this webhook, too
            self._requested.set()
        if not self._is_running():
            with self._starting:
                if not self._is_running():
                    thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
                    with suppress(RuntimeError):  # can't start a thread: the sweeper finds the webhooks
                        thread.start()
                        self._thread = thread

    def _is_running(self) -> bool:
        """Return False also for a thread that died, say of a full disk under a metric's file."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        is_reachable = True
        while True:
            try:
                with broker_connection(self._app) as connection:
                    while True:
                        self._requested.wait()
                        self._requested.clear()
                        publish(self._app, connection)
                        if not is_reachable:
                            log.info("broker reachable again")
                            is_reachable = True
                        time.sleep(PAUSE_SECONDS)
            except Exception as exc:  # noqa: BLE001 each transport has its own errors, and the inbox needs none
                self._requested.set()
                RING_FAILURES.inc()
                if is_reachable:
                    log.warning("broker unreachable; the sweeper finds the webhooks", error=repr(exc))
                    is_reachable = False
                time.sleep(PAUSE_AFTER_FAILURE_SECONDS)


ring = Doorbell(current_app).ring
