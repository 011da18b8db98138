"""Scenarios in which bank statements are uploaded and operators post what the bank never notified.

In the end every line is posted once, also under two clicks, repeated files and late webhooks, and ledger and
bank differ by what the reconciliation lists.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

from faults.admin_browser import AdminBrowser, sign_in
from faults.correcting_operator import AWAY
from faults.correction_scenarios import kill
from faults.scenario_run import ScenarioRun, failpoint_environment
from faults.scenarios import scenario
from faults.statement_checker import check_statements
from faults.statement_plan import ACCOUNTS, FIRST_DAY, LAST_DAY, StatementPlan
from tests.harness.bank_client import DeliveryMix
from tests.harness.procfile_stack import DATABASE_ERRORS
from tests.harness.wait import wait_until

LINES, LINES_KILLED = 200, 5000
SETTLE = "/admin/statements/statementline/settle/"
METRICS_TOKEN = "only-for-the-fault-suite"
RESPONSE_SECONDS_MAX = 120.0  # of an import of thousands of lines, on a machine that does much else
POSTING_SECONDS_MAX = 300
STEPS = ("lines-posted", "chunk-committed")  # not committed; the next chunk has not begun
UNDER_WAY_MIN = 6  # faults that have to hit while lines are left to be posted: fewer prove nothing
_SET_UP = f"""
from api.keys import issue
from api.models import WRITE_STATEMENTS
from statements.models import OwnAccount
for number in {ACCOUNTS}:
    OwnAccount.objects.create(number=number, since="{FIRST_DAY}")
print(issue("bank client", WRITE_STATEMENTS)[1])
"""
PENDING = "SELECT COUNT(*) FROM statements_actionitem WHERE outcome = ''"
OPEN = f"SELECT COUNT(*) FROM ingest_webhook WHERE status = 'received' AND document_date >= '{FIRST_DAY}'"
SETTLED = "SELECT COUNT(*) FROM statements_actionitem WHERE outcome <> ''"
_BREAKS = re.compile(r"^prihod_bank_balance_breaks ([0-9.]+)", re.MULTILINE)


def statements(**stack: Any) -> Callable[[Callable[[ScenarioRun], None]], None]:
    environment = {**failpoint_environment(), "METRICS_TOKEN": METRICS_TOKEN}
    return scenario(DeliveryMix(), rate=40, environment=environment, **stack)


@statements()
def statements_posted(run: ScenarioRun) -> None:
    """No fault: files that repeat each other are uploaded, and posted by two clicks; late webhooks come."""
    plan = StatementPlan(run.rng, LINES)
    office = Office(run, plan)
    office.upload()
    office.post()
    office.finish()
    for delivery in plan.late:
        run.bank.deliver(delivery)
    office.finish()
    office.check()


@statements()
def statements_posting_killed(run: ScenarioRun) -> None:
    """kill -9 of web, workers and database, while 5 000 lines are posted and some of them notified late."""
    plan = StatementPlan(run.rng, LINES_KILLED)
    office = Office(run, plan)
    office.upload()
    office.post()
    faults = [*_faults(run)]
    under_way = 0
    for number, fault in enumerate(run.rng.sample(faults, len(faults))):
        at = partial(office.has_settled, number / len(faults))
        wait_until(at, "the next lines are settled", POSTING_SECONDS_MAX)
        for delivery in plan.late[number :: len(faults)]:
            run.bank.deliver(delivery)
        under_way += not office.is_finished()
        fault()
    run.require(under_way >= UNDER_WAY_MIN, f"only {under_way} faults hit before all lines were settled")
    run.drain()
    office.finish()
    for step in STEPS:
        run.require(run.has_fired(step, "exit"), f"no process reached {step}")
    office.check()


def _faults(run: ScenarioRun) -> Iterator[Callable[[], None]]:
    """Yield each kind of fault twice, and an exit at each of STEPS."""
    for worker in run.stack.workers:
        yield partial(_kill, run, "web")
        yield partial(_kill, run, worker.name)
        yield partial(_kill_child, run)
        yield partial(_kill_database, run)
    yield from (partial(run.arm, step, "exit") for step in STEPS)


def _kill(run: ScenarioRun, name: str) -> None:
    run.inject(f"kill -9 {name}", run.stack[name].kill_group)
    run.stack.start(name, wait=False)


def _kill_child(run: ScenarioRun) -> None:
    run.inject("kill -9 a child of a worker", kill, run.rng.choice(run.stack.workers).random_child(run.rng))


def _kill_database(run: ScenarioRun) -> None:
    run.inject("kill -9 mariadb", run.stack.mariadb.kill)
    run.stack.mariadb.start()


class Office:
    """Uploads the statements of a plan, posts what the bank has not notified, and judges the outcome."""

    def __init__(self, run: ScenarioRun, plan: StatementPlan) -> None:
        self._run, self._plan, self._stack = run, plan, run.stack
        self._browser = AdminBrowser(run.stack.port, sign_in(run.stack), RESPONSE_SECONDS_MAX)

    def upload(self) -> None:
        """Have the bank notify some payments, and upload all files when they are applied.

        Raise RuntimeError if that is impossible.
        """
        set_up = self._stack.manage("shell", "-c", _SET_UP)
        if set_up.returncode:
            raise RuntimeError(set_up.stderr)
        for delivery in self._plan.before:
            self._run.bank.deliver(delivery)
        numbers = [delivery.terms.document_number for delivery in self._plan.before]
        applied = "SELECT COUNT(*) FROM ingest_webhook WHERE status = 'applied' AND document_number IN"
        places = ", ".join(["%s"] * len(numbers))
        are_applied = f"{applied} ({places}) AND document_date >= '{FIRST_DAY}'"
        wait_until(
            lambda: self._stack.sql(are_applied, *numbers)[0][0] == len(numbers), "webhooks are applied", 60
        )
        for body in self._plan.files():
            self._get("/api/bank-statements/", set_up.stdout.split()[-1], body)

    def post(self) -> None:
        """Post all lines that were not notified, those of unknown payers to suspense; two clicks on each."""
        for bucket in ("missing_webhook", "unidentified"):
            url = f"{SETTLE}post/?bucket={bucket}&first={FIRST_DAY}&last={LAST_DAY}"
            digest = self._browser.digest(url)
            if digest is None:
                raise RuntimeError(f"there is nothing to post in {bucket}")
            clicks = [Thread(target=self._browser.submit, args=(url, digest)) for _ in range(2)]
            for click in clicks:
                click.start()
            for click in clicks:
                click.join()
        self._run.require(not self._browser.errors, f"the operator saw {self._browser.errors}")

    def has_settled(self, share: float) -> bool:
        """Return whether this share of the actions' items is settled, or all are."""
        with suppress(*AWAY):  # the database is starting again
            settled, pending = (int(self._stack.sql(query)[0][0]) for query in (SETTLED, PENDING))
            return settled >= share * (settled + pending)
        return False

    def is_finished(self) -> bool:
        """Return whether every action has run and every payment of the plan is applied; start what has ended.

        The bank's other payments are older.
        """
        self._stack.start_ended()
        with suppress(*DATABASE_ERRORS):
            return not any(int(self._stack.sql(query)[0][0]) for query in (PENDING, OPEN))
        return False

    def finish(self) -> None:
        wait_until(self.is_finished, "every line is settled and applied", POSTING_SECONDS_MAX)

    def check(self) -> None:
        self._run.violations += check_statements(self._stack, self._plan)
        shown = _BREAKS.search(self._get("/metrics", METRICS_TOKEN))
        breaks = float(shown[1]) if shown else 0
        self._run.require(breaks == 1, f"statements: {breaks:.0f} breaks between balances are shown")

    def _get(self, path: str, token: str, body: bytes | None = None) -> str:
        headers = {"Authorization": f"Bearer {token}"}
        request = Request(f"http://127.0.0.1:{self._stack.port}{path}", body, headers)
        with closing(urlopen(request, timeout=RESPONSE_SECONDS_MAX)) as response:
            return str(response.read().decode())
