"""The module in which Django looks for the backend's DatabaseWrapper."""

import math
import select
import time

from django.db.backends.mysql import base

IDLE_SECONDS_MAX = 1.0  # shorter than any wait_timeout, which is in whole seconds


class DatabaseWrapper(base.DatabaseWrapper):
    _checked_at = -math.inf

    def is_usable(self) -> bool:
        """Poll the socket instead of pinging the server before each request.

        A server that has ended a session has sent an error or closed the connection, so there is something
        to read. After an error only a ping shows the session's state. After an idle period the session could
        time out at this moment, and a ping restarts wait_timeout.
        """
        last, self._checked_at = self._checked_at, time.monotonic()
        if self.errors_occurred or self._checked_at - last > IDLE_SECONDS_MAX:
            return bool(super().is_usable())
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        return not poll.poll(0)
