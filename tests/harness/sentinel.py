"""A private Redis master with two replicas, and three sentinels that replace a dead master."""

from collections.abc import Sequence
from pathlib import Path

from redis import Redis as Client

from tests.harness.servers import Redis, ServerGroup
from tests.harness.wait import wait_until

MASTER_NAME = "prihod"
SENTINELS = 3
DOWN_AFTER_MILLISECONDS = 2000
AGREED_SECONDS_MAX = 30.0


class Sentinel(Redis):
    def __init__(self, master: Redis) -> None:
        super().__init__()
        self._master = master
        target = self.program.readlink()
        self.program = self.folder / "redis-sentinel"
        self.program.symlink_to(target)

    def start(self) -> None:
        file = self._file()
        if not file.exists():  # later the sentinel's own, which it rewrites
            monitored = f"sentinel monitor {MASTER_NAME} 127.0.0.1 {self._master.port} 2"
            rules = {"down-after-milliseconds": DOWN_AFTER_MILLISECONDS, "failover-timeout": 6000}
            lines = [f"sentinel {name} {MASTER_NAME} {value}" for name, value in rules.items()]
            file.write_text("\n".join([monitored, *lines, ""]))
        super().start()

    def _file(self) -> Path:
        return self.folder / "sentinel.conf"

    def _options(self) -> list[str]:
        place = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        return [str(self._file()), *place]


class RedisWithSentinels(ServerGroup):
    """The servers with the surface of one Redis, for ProcfileStack."""

    name = "Redis"

    def __init__(self, settings: Sequence[str] = ()) -> None:
        first = Redis(settings)
        replicas = [Redis([*settings, "--replicaof", "127.0.0.1", str(first.port)]) for _ in range(2)]
        self.servers = [first, *replicas]
        self.sentinels = [Sentinel(first) for _ in range(SENTINELS)]

    @property
    def url(self) -> str:
        addresses = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"sentinel://{addresses}/0?master_name={MASTER_NAME}"

    @property
    def log(self) -> Path:
        return self.servers[0].log

    @property
    def pid(self) -> int:
        return self.master().pid

    def master(self) -> Redis:
        """Return the server that the first running sentinel names."""
        sentinel = next(each for each in self.sentinels if each.is_running())
        with Client(port=sentinel.port) as client:
            _, port = client.sentinel_get_master_addr_by_name(MASTER_NAME)
        return next(server for server in self.servers if server.port == int(port))

    def members(self) -> list[Redis]:
        return [*self.servers, *self.sentinels]

    def start(self) -> None:
        super().start()
        wait_until(self._all_are_known, "the sentinels know each other", AGREED_SECONDS_MAX)

    def _all_are_known(self) -> bool:
        """Return whether each sentinel knows the others and the replicas, so that it can replace a master."""
        return all(
            self._known(sentinel) == (SENTINELS - 1, len(self.servers) - 1) for sentinel in self.sentinels
        )

    def _known(self, sentinel: Sentinel) -> tuple[int, int]:
        with Client(port=sentinel.port) as client:
            fields = client.sentinel_master(MASTER_NAME)
        return int(fields["num-other-sentinels"]), int(fields["num-slaves"])
