"""Kombu's Redis transports, whose channels can be closed after the broker is lost.

A worker that has lost its broker closes the connection twice. The first time stops at the first channel that
raises the loss, leaves others open, and takes the transport its settings away. The second time an open one
with unacknowledged messages connects to restore them, and raises AttributeError, which ends the worker
(kombu 5.7).
"""

from typing import Any

from kombu.transport import redis


class _ClosableChannel:
    connection: Any  # the transport; None after closing

    def close(self) -> None:
        """Close. Without settings restore nothing: a message is only a ring, or names webhooks."""
        if self.connection is not None and self.connection.client is None:
            self.do_restore = False
        super().close()  # type: ignore[misc]  # of the channel that it is mixed into


class Channel(_ClosableChannel, redis.Channel):
    pass


class SentinelChannel(_ClosableChannel, redis.SentinelChannel):
    pass


class Transport(redis.Transport):
    Channel = Channel


class SentinelTransport(redis.SentinelTransport):
    Channel = SentinelChannel
