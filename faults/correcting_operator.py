"""An operator at the admin who corrects payments while processes and servers die.

Each correction is a confirmation page and its submission. If the submission gets no response it is unknown
whether the action was created; the operator then finds that the payment is corrected, or corrects it again.
"""

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from random import Random
from urllib.parse import urlencode

from faults.admin_browser import AdminBrowser
from tests.harness.bank_client import INNS
from tests.harness.procfile_stack import DATABASE_ERRORS, ProcfileStack
from tests.harness.wait import wait_until

AWAY = (OSError, HTTPException, *DATABASE_ERRORS)  # what a request or a query raises while something is down
PAYMENTS_MAX = 3  # in one action: the request corrects the first, a worker the others
PAUSE_SECONDS = 0.05
UNDONE = 0.2  # share of corrections that undo an assignment


@dataclass
class History:
    """The corrections of one webhook so far."""

    done: list[str] = field(default_factory=list)  # kinds of actions
    pending: bool = False


class Operator:
    """Corrects payments from `open` to `close`, in a thread; `finish` waits for the actions."""

    def __init__(self, stack: ProcfileStack, rng: Random, session_key: str) -> None:
        self._stack, self._rng = stack, rng
        self._browser = AdminBrowser(stack.port, session_key)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @property
    def errors(self) -> list[str]:
        return self._browser.errors

    def open(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def finish(self) -> None:
        """Stop correcting, and wait until every action has run."""
        self.close()
        wait_until(lambda: not self.pending(), "every action has run", 120)

    def pending(self) -> int:
        items = "SELECT COUNT(*) FROM ingest_operatoractionitem WHERE outcome = ''"
        return int(self._stack.sql(items)[0][0])

    def submit(self, kind: str, webhooks: Sequence[int], inn: str = "") -> None:
        """Confirm and submit one action. Raise OSError or HTTPException if a response is missing."""
        url, ids = f"/admin/ingest/webhook/action/{kind}/", " ".join(map(str, webhooks))
        confirmation = f"{url}?{urlencode({'ids': ids, 'inn': inn})}"
        self._browser.confirm(confirmation, url, ids=ids, inn=inn, previewed_inn=inn)

    def _run(self) -> None:
        while not self._closing.wait(PAUSE_SECONDS):
            with suppress(*AWAY):
                self._correct_some()

    def _correct_some(self) -> None:
        candidates = self._candidates()
        kinds = ["assign", "replace"] if self._rng.random() > UNDONE else ["unassign"]
        kind = self._rng.choice(kinds)
        if webhooks := candidates[kind][: self._rng.randint(1, PAYMENTS_MAX)]:
            self.submit(kind, webhooks, self._rng.choice(INNS) if kind == "assign" else "")

    def _candidates(self) -> Mapping[str, list[int]]:
        """Return the webhooks that an action of each kind would correct now."""
        histories: dict[int, History] = defaultdict(History)
        for webhook, kind, outcome in self._stack.sql(
            "SELECT i.webhook_id, a.kind, i.outcome FROM ingest_operatoractionitem i"
            " JOIN ingest_operatoraction a ON a.id = i.action_id ORDER BY i.id"
        ):
            histories[webhook].pending |= outcome == ""
            histories[webhook].done += [kind] * (outcome == "done")
        applied = "SELECT id FROM ingest_webhook w WHERE status = 'applied' AND"
        suspended = self._stack.sql(f"{applied} payer_inn LIKE %s", "@%")
        disputed = self._stack.sql(
            f"{applied} EXISTS (SELECT 1 FROM ingest_conflictingdelivery c"
            " WHERE c.webhook_id = w.id AND c.resolved_by_id IS NULL)"
        )
        idle = [key for (key,) in suspended if not histories[key].pending]
        assigned = [key for key in idle if histories[key].done[-1:] == ["assign"]]
        return {
            "assign": sorted({*idle} - {*assigned}),
            "unassign": assigned,
            "replace": [key for (key,) in disputed if not histories[key].pending],
        }
