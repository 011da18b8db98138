"""The module in which Django looks for the backend's DatabaseWrapper."""

import math
import select
import time
from collections.abc import Sequence
from typing import Any

from django.db.backends.mysql import base

from core.db.mysql_backend import hosts
from core.db.mysql_backend.hosts import Host

IDLE_SECONDS_MAX = 1.0  # shorter than any wait_timeout, which is in whole seconds


class DatabaseWrapper(base.DatabaseWrapper):
    _checked_at = -math.inf
    _host: Host | None = None  # of the open connection, if DATABASE_URL lists several
    answer_seconds_max: int | None = None  # of a listed host, if it is to be given up sooner than others

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        listed: Sequence[Host] = self.settings_dict.get("HOSTS", ())
        if not listed:
            return super().get_new_connection(conn_params)
        if self.answer_seconds_max is not None:
            timeouts = dict.fromkeys(("read_timeout", "write_timeout"), self.answer_seconds_max)
            conn_params = {**conn_params, **timeouts}
        connect = super().get_new_connection
        self._host, connection = hosts.connect_first(
            listed,
            lambda host: connect({**conn_params, "host": host.name, "port": host.port}),
            self.Database.OperationalError,
        )
        return connection

    def is_usable(self) -> bool:
        """Poll the socket instead of pinging the server before each request.

        A server that has ended a session has sent an error or closed the connection, so there is something
        to read. After an error only a ping shows the session's state. After an idle period the session could
        time out at this moment, and a ping restarts wait_timeout. In a list of hosts this one may have
        become read-only.
        """
        last, self._checked_at = self._checked_at, time.monotonic()
        if self.errors_occurred or self._checked_at - last > IDLE_SECONDS_MAX:
            return bool(super().is_usable()) if self._host is None else self._takes_writes(self._host)
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        return not poll.poll(0)

    def _takes_writes(self, host: Host) -> bool:
        try:
            refusal = hosts.refusal_of_writes(self.connection)
        except self.Database.Error as exc:
            refusal = str(exc.args[-1])
        if refusal:
            hosts.avoid(host, f"{host}: {refusal}")
        return not refusal
