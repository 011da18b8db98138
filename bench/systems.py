"""Prihod and the baseline designs, each in a stack of its own: same settings and kinds of servers.

A measurement is valid only if every delivery answered 200 is stored and the ledger is consistent.
"""

from enum import Enum

from tests.harness.procfile_stack import SHORT_TIMES, ProcfileStack
from tests.harness.wait import WaitTimeout, wait_until

DRAIN_SECONDS_MAX = 180.0
# As in docker-compose.yml, for every system; docs/deployment.md says why.
DATABASE_SETTINGS = ("--innodb-log-file-size=1G",)
# The first half of verify_ledger, for a design without an inbox.
VERIFY_LEDGER_CODE = "from ledger.verification import verify; exit(next(map(str, verify()), None))"
# As a Django project is usually deployed; as many processes and threads as Prihod has.
STOCK_GUNICORN = "exec gunicorn --bind 127.0.0.1:$PORT --workers 2 --threads 4 bench.baselines.wsgi"


class InvalidRun(Exception):
    """Something was lost or is wrong: the measurements don't count."""


class System(Enum):
    """The value is the module in bench/baselines, empty for Prihod, and the command of its web processes.

    Without a command it is the Procfile's.
    """

    PRIHOD = "", ""
    PARSING_ONLY = "parsing_only", ""
    MESSAGE_PER_WEBHOOK = "message_per_webhook", STOCK_GUNICORN
    SYNCHRONOUS = "synchronous", STOCK_GUNICORN
    MESSAGE_PER_WEBHOOK_ON_OUR_SERVER = "message_per_webhook", ""
    SYNCHRONOUS_ON_OUR_SERVER = "synchronous", ""

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")

    def stack(self, *, embedded: bool = False, only_web: bool = False) -> ProcfileStack:
        """Return a stack of this system. With `only_web` nothing but web runs until `drain`."""
        baseline, command = self.value
        environment = dict.fromkeys(SHORT_TIMES, "")  # production's own times instead
        if baseline:
            environment["DJANGO_SETTINGS_MODULE"] = "bench.baselines.settings"
            environment["BENCH_BASELINE"] = baseline
        return ProcfileStack(
            workers=1,
            embedded=embedded,
            database_settings=DATABASE_SETTINGS,
            environment=environment,
            commands={"web": command} if command else {},
            started=["web"] if only_web else None,
        )

    @property
    def stores_nothing(self) -> bool:
        return self is System.PARSING_ONLY

    @property
    def has_inbox(self) -> bool:
        return "synchronous" not in self.value

    def stored(self, stack: ProcfileStack) -> int:
        """Return the number of webhooks in the system's table."""
        table = "ingest_webhook" if self.has_inbox else "ledger_payment"
        return int(stack.sql(f"SELECT COUNT(*) FROM {table}")[0][0])

    def require_verified(self, stack: ProcfileStack) -> None:
        """Raise InvalidRun if the ledger is inconsistent."""
        everything, ledger = ["verify_ledger"], ["shell", "--no-imports", "--command", VERIFY_LEDGER_CODE]
        verified = stack.manage(*(everything if self.has_inbox else ledger))
        if verified.returncode != 0:
            raise InvalidRun(f"{self}: {verified.stdout}{verified.stderr}")


def drain(stack: ProcfileStack) -> float:
    """Start all processes of the stack and wait until no webhook is received any more; return the seconds.

    Raise InvalidRun if it takes too long, or if a webhook was not applied.
    """
    stack.start(*(name for name, program in stack.programs.items() if not program.runs()))
    try:
        seconds = wait_until(lambda: not stack.received(), "the backlog is drained", DRAIN_SECONDS_MAX)
    except WaitTimeout as exc:
        raise InvalidRun(f"{exc}; {stack.received()} webhooks are left") from exc
    if others := stack.sql("SELECT COUNT(*) FROM ingest_webhook WHERE status <> 'applied'")[0][0]:
        raise InvalidRun(f"{others} webhooks were not applied")
    return seconds


def require_stored(stored: int, *, acknowledged: int, sent: int) -> None:
    """Raise InvalidRun unless everything answered 200 is stored, and no more than was sent."""
    if not acknowledged <= stored <= sent:
        raise InvalidRun(f"{stored} webhooks are stored, {acknowledged} were answered 200, {sent} were sent")
