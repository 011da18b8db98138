"""Kombu's RabbitMQ transports, for which a refused login is an error like that of a server that is down.

To py-amqp a wrong password is an error of a channel, which ends a worker with a traceback, and an unknown
virtual host one that is final. Retried, each is a line in the log, as a wrong password of Redis is.
"""

from typing import Any

from amqp.exceptions import AccessRefused, NotAllowed
from kombu.transport import pyamqp


class _RetriesLogin:
    def establish_connection(self) -> Any:
        try:
            return super().establish_connection()  # type: ignore[misc]  # of the transport that it is mixed into
        except (AccessRefused, NotAllowed) as exc:
            raise ConnectionRefusedError(exc.reply_text or "the login is refused") from exc


class Transport(_RetriesLogin, pyamqp.Transport):
    pass


class SSLTransport(_RetriesLogin, pyamqp.SSLTransport):
    pass
