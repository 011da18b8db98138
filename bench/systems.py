"""Ours and the usual designs, each in a house of its own: same commands, same settings, same kind of servers.

What was answered 200 has to be there, and the books have to be right; otherwise no figure counts.
"""

from enum import Enum

from tests.harness.procfile_stack import SHORT_TIMES, ProcfileStack
from tests.harness.wait import WaitTimeout, wait_until

DRAIN_SECONDS_MAX = 180.0
# As docker-compose.yml has it, for every design: docs/deployment.md says why.
DATABASE_SETTINGS = ("--innodb-log-file-size=1G",)
# verify_ledger's first half, for a design that has no inbox.
VERIFY_LEDGER_CODE = "from ledger.verification import verify; exit(next(map(str, verify()), None))"


class InvalidRun(Exception):
    """Something was lost or is wrong."""


class System(Enum):
    """The value is the module in bench/baselines; empty for ours."""

    OURS = ""
    PARSING_ONLY = "parsing_only"
    MESSAGE_PER_WEBHOOK = "message_per_webhook"
    SYNCHRONOUS = "synchronous"

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")

    def stack(self, *, embedded: bool = False, only_the_door: bool = False) -> ProcfileStack:
        """only_the_door: nothing but the web process runs, until `drain`."""
        environment = dict.fromkeys(SHORT_TIMES, "")  # production's own times instead
        if self is not System.OURS:
            environment |= {
                "DJANGO_SETTINGS_MODULE": "bench.baselines.settings",
                "BENCH_BASELINE": self.value,
            }
        started = ["web"] if only_the_door else None
        return ProcfileStack(
            workers=1,
            embedded=embedded,
            database_settings=DATABASE_SETTINGS,
            environment=environment,
            started=started,
        )

    def stored(self, stack: ProcfileStack) -> int:
        """How many webhooks it has, wherever it keeps them."""
        table = "ledger_payment" if self is System.SYNCHRONOUS else "ingest_webhook"
        return int(stack.sql(f"SELECT COUNT(*) FROM {table}")[0][0])

    def require_verified(self, stack: ProcfileStack) -> None:
        """Raises InvalidRun if the books are not right."""
        whole, ledger = ["verify_ledger"], ["shell", "--no-imports", "--command", VERIFY_LEDGER_CODE]
        verified = stack.manage(*(ledger if self is System.SYNCHRONOUS else whole))
        if verified.returncode != 0:
            raise InvalidRun(f"{self}: {verified.stdout}{verified.stderr}")


def drain(stack: ProcfileStack) -> float:
    """Let all of the house run, until nothing is left received; the seconds that took.

    Raises InvalidRun when it takes too long, or if anything was not applied.
    """
    stack.start(*(name for name, program in stack.programs.items() if not program.runs()))
    try:
        seconds = wait_until(lambda: not stack.received(), "the backlog is drained", DRAIN_SECONDS_MAX)
    except WaitTimeout as failure:
        raise InvalidRun(f"{failure}; {stack.received()} webhooks are left") from failure
    if others := stack.sql("SELECT COUNT(*) FROM ingest_webhook WHERE status <> 'applied'")[0][0]:
        raise InvalidRun(f"{others} webhooks were not applied")
    return seconds


def require_stored(stored: int, *, answered: int, sent: int) -> None:
    """Raises InvalidRun unless what was answered 200 is there, and no more than was sent."""
    if not answered <= stored <= sent:
        raise InvalidRun(f"{stored} webhooks are stored, {answered} were answered 200, {sent} were sent")
