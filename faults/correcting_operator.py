"""An operator at the admin who corrects payments while processes and servers die.

Each correction is a confirmation page and its submission. If the submission gets no response it is unknown
whether the action was created; the operator then finds that the payment is corrected, or corrects it again.
"""

import re
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from random import Random
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from tests.harness.bank_client import INNS, RESPONSE_SECONDS_MAX
from tests.harness.procfile_stack import DATABASE_ERRORS, ProcfileStack
from tests.harness.wait import wait_until

CSRF_TOKEN = "c" * 32
_SIGN_IN = """
from importlib import import_module
from django.conf import settings
from django.contrib.auth.models import User
user = User.objects.create_superuser("anna")
session = import_module(settings.SESSION_ENGINE).SessionStore()
session["_auth_user_id"], session["_auth_user_hash"] = str(user.pk), user.get_session_auth_hash()
session["_auth_user_backend"] = settings.AUTHENTICATION_BACKENDS[-1]
session.create()
print(session.session_key)
"""
AWAY = (OSError, HTTPException, *DATABASE_ERRORS)  # what a request or a query raises while something is down
PAYMENTS_MAX = 3  # in one action: the request corrects the first, a worker the others
PAUSE_SECONDS = 0.05
UNDONE = 0.2  # share of corrections that undo an assignment
_DIGEST = re.compile('name="digest" value="([^"]*)"')


def sign_in(stack: ProcfileStack) -> str:
    """Create a superuser and return the key of a session: a login's password hash takes long under load.

    Raise RuntimeError if the site does not accept it.
    """
    signed_in = stack.manage("shell", "-c", _SIGN_IN)
    if signed_in.returncode:
        raise RuntimeError(signed_in.stderr)
    session_key = signed_in.stdout.split()[-1]
    index = Request(f"http://127.0.0.1:{stack.port}/admin/", headers={"Cookie": f"sessionid={session_key}"})
    with urlopen(index) as response:
        if response.url != index.full_url:
            raise RuntimeError(f"the operator is sent to {response.url}")
    return session_key


@dataclass
class History:
    """The corrections of one webhook so far."""

    done: list[str] = field(default_factory=list)  # kinds of actions
    pending: bool = False


class Operator:
    """Corrects payments from `open` to `close`, in a thread; `finish` waits for the actions."""

    def __init__(self, stack: ProcfileStack, rng: Random, session_key: str) -> None:
        self.errors: list[str] = []  # responses of 500 and above
        self._stack, self._rng = stack, rng
        self._cookies = f"sessionid={session_key}; csrftoken={CSRF_TOKEN}"
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run)

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
        page = self._get(f"{url}?{urlencode({'ids': ids, 'inn': inn})}")
        if digest := _DIGEST.search(page):
            fields = {"ids": ids, "digest": digest[1], "inn": inn, "previewed_inn": inn}
            self._post(url, reason="the fault suite", **fields)

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

    def _get(self, path: str) -> str:
        return self._send(path, None)

    def _post(self, path: str, **fields: str) -> str:
        return self._send(path, urlencode({**fields, "csrfmiddlewaretoken": CSRF_TOKEN}).encode())

    def _send(self, path: str, data: bytes | None) -> str:
        request = Request(f"http://127.0.0.1:{self._stack.port}{path}", data, {"Cookie": self._cookies})
        try:
            with urlopen(request, timeout=RESPONSE_SECONDS_MAX) as response:
                return str(response.read().decode())
        except HTTPError as exc:
            if exc.code >= 500:
                self.errors.append(f"{request.get_method()} {path} got {exc.code}")
            raise
