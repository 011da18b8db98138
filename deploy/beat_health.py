"""Exit 0 if something else in this container, that is beat, has spoken to Redis lately; otherwise 1.

Beat answers no `inspect ping`, and a beat that waits for ever on a hung connection looks alive from
outside. Redis itself knows: beat publishes a sweep every SWEEP_EVERY_SECONDS, 2 by default, so its
connection is never idle for long. In Compose each container has an address of its own.
"""  # noqa: INP001 a script that the container runs, no module that anything imports

import os
import sys

import redis

IDLE_SECONDS_MAX = 60
SOCKET_TIMEOUT_SECONDS = 5


def somebody_here_spoke_lately(client: redis.Redis) -> bool:
    """Whether Redis heard another connection from our address of late; raises redis.RedisError."""
    me = client.client_info()
    return any(
        other["id"] != str(me["id"])
        and _host(other["addr"]) == _host(me["addr"])
        and int(other["idle"]) <= IDLE_SECONDS_MAX
        for other in client.client_list()
    )


def _host(address: str) -> str:
    return address.rpartition(":")[0]


if __name__ == "__main__":
    server = redis.Redis.from_url(
        os.environ["REDIS_URL"],
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
    )
    sys.exit(0 if somebody_here_spoke_lately(server) else 1)
