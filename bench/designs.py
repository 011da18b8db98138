"""Ours and the usual designs, each in a house of its own: same commands, same settings, same kind of servers.

What was answered 200 has to be there, and the books have to be right; otherwise no figure counts.
"""

from enum import Enum

from faults.house import SHORT_TIMES, House, HouseFailed, wait_until

DRAIN_SECONDS_MAX = 180.0
# As docker-compose.yml has it, for every design: docs/deployment.md says why.
DATABASE_SETTINGS = ("--innodb-log-file-size=1G",)
# verify_ledger's first half, for a design that has no inbox.
VERIFY_THE_LEDGER_ALONE = "from ledger.verification import verify; exit(next(map(str, verify()), None))"


class DoesNotCount(Exception):
    """Something was lost or is wrong."""


class Design(Enum):
    """The value is the module in bench/peers; empty for ours."""

    OURS = ""
    PARSING_ONLY = "parsing_only"
    MESSAGE_PER_WEBHOOK = "message_per_webhook"
    SYNCHRONOUS = "synchronous"

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")

    def house(self, *, embedded: bool = False, only_the_door: bool = False) -> House:
        """only_the_door: nothing but the web process runs, until `drain`."""
        environment = dict.fromkeys(SHORT_TIMES, "")  # production's own times instead
        if self is not Design.OURS:
            environment |= {"DJANGO_SETTINGS_MODULE": "bench.peers.settings", "BENCH_PEER": self.value}
        started = ["web"] if only_the_door else None
        return House(
            workers=1,
            embedded=embedded,
            database_settings=DATABASE_SETTINGS,
            environment=environment,
            started=started,
        )

    def stored(self, house: House) -> int:
        """How many webhooks it has, wherever it keeps them."""
        table = "ledger_payment" if self is Design.SYNCHRONOUS else "ingest_webhook"
        return int(house.sql(f"SELECT COUNT(*) FROM {table}")[0][0])

    def require_verified(self, house: House) -> None:
        """Raises DoesNotCount if the books are not right."""
        whole, ledger = ["verify_ledger"], ["shell", "--no-imports", "--command", VERIFY_THE_LEDGER_ALONE]
        verified = house.manage(*(ledger if self is Design.SYNCHRONOUS else whole))
        if verified.returncode != 0:
            raise DoesNotCount(f"{self}: {verified.stdout}{verified.stderr}")


def drain(house: House) -> float:
    """Let all of the house run, until nothing is left received; the seconds that took.

    Raises DoesNotCount when it takes too long, or if anything was not applied.
    """
    house.start(*(name for name, program in house.programs.items() if not program.runs()))
    try:
        seconds = wait_until(lambda: not house.received(), "the backlog is drained", DRAIN_SECONDS_MAX)
    except HouseFailed as failure:
        raise DoesNotCount(f"{failure}; {house.received()} webhooks are left") from failure
    if others := house.sql("SELECT COUNT(*) FROM ingest_webhook WHERE status <> 'applied'")[0][0]:
        raise DoesNotCount(f"{others} webhooks were not applied")
    return seconds


def require_stored(stored: int, *, answered: int, sent: int) -> None:
    """Raises DoesNotCount unless what was answered 200 is there, and no more than was sent."""
    if not answered <= stored <= sent:
        raise DoesNotCount(f"{stored} webhooks are stored, {answered} were answered 200, {sent} were sent")
