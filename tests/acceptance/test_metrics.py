"""Metrics of real processes, compared with what was sent."""

import json
import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.conftest import StackBuilder
from tests.harness.launcher_stack import LauncherStack
from tests.harness.servers import free_port

INN = "7707083893"
TOKEN = "s3cret"


def webhook(**changed: object) -> dict[str, object]:
    fields = {"operation_id": str(uuid4()), "amount": 1, "payer_inn": INN, "document_number": "1"}
    return {**fields, "document_date": "2024-04-27T21:00:00Z", **changed}


class CountingBank:
    """Retry deliveries answered 503, and count every response by status."""

    def __init__(self, stack: LauncherStack) -> None:
        self._stack = stack
        self.statuses: Counter[int] = Counter()

    def deliver(self, webhooks: list[dict[str, object]]) -> None:
        with ThreadPoolExecutor(8) as pool:
            for statuses in pool.map(self._deliver, webhooks):
                self.statuses.update(statuses)

    def _deliver(self, webhook: dict[str, object]) -> list[int]:
        body = json.dumps(webhook).encode()
        statuses = [self._stack.post(body, {})[0]]
        while statuses[-1] == 503:
            statuses.append(self._stack.post(body, {})[0])
        return statuses


def total(stack: LauncherStack, name: str, **labels: str) -> float:
    status, text = stack.get("/metrics")
    assert status == 200, stack.output()
    return _total(text.decode(), name, labels)


def _total(text: str, name: str, labels: dict[str, str]) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def web_children(stack: LauncherStack) -> list[int]:
    """Return gunicorn's worker processes; its main process started first and is left out."""
    return stack.pids("gunicorn")[1:]


def test_metrics_count_exactly_across_processes_and_kills(new_stack: StackBuilder) -> None:
    port = free_port()
    settings = {"METRICS_PORT": str(port), "METRICS_TOKEN": TOKEN}
    with new_stack(WEB_PROCESSES="2", WORKER_PROCESSES="2", **settings) as stack:
        stack.api_key = TOKEN
        bank = CountingBank(stack)
        webhooks = [webhook() for _ in range(200)]
        bank.deliver(webhooks)
        bank.deliver(webhooks[:40])
        bank.deliver([{**webhooks[0], "amount": 2}, webhook(amount="abc"), webhook(payer_inn="1")])
        assert (bank.statuses[200], bank.statuses[400]) == (241, 2)
        stack.wait_until(lambda: total(stack, "prihod_webhooks_applied_total") == 200)
        require_exact_counts(stack, bank, applied=200)
        assert total(stack, "prihod_webhooks_pending") == 0
        assert total(stack, "prihod_workers_up") == 1

        victim = web_children(stack)[0]
        os.kill(victim, signal.SIGKILL)
        for pid in stack.pids("celery\0--quiet\0-A\0worker\0worker")[1:]:
            os.kill(pid, signal.SIGKILL)  # pool processes; a solo pool has none
        stack.wait_until(lambda: victim not in stack.pids() and len(web_children(stack)) == 2)
        require_exact_counts(stack, bank, applied=200)

        bank.deliver([webhook() for _ in range(60)])
        stack.wait_until(lambda: total(stack, "prihod_webhooks_applied_total") >= 260)
        require_exact_counts(stack, bank, applied=260)
        require_the_token(stack, port, applied=260)


def require_exact_counts(stack: LauncherStack, bank: CountingBank, *, applied: int) -> None:
    counted = {
        status: total(stack, "prihod_deliveries_total", status=str(status)) for status in bank.statuses
    }
    assert counted == bank.statuses
    assert total(stack, "prihod_deliveries_total") == bank.statuses.total()
    assert total(stack, "prihod_delivery_duration_seconds_count") == bank.statuses.total()
    assert total(stack, "prihod_conflicting_deliveries_total") == 1
    assert total(stack, "prihod_webhooks_applied_total") == applied
    assert total(stack, "prihod_batch_size_sum") == applied
    assert total(stack, "prihod_batch_size_count") == total(stack, "prihod_batch_duration_seconds_count") > 0
    assert total(stack, "prihod_doorbell_rings_total") > 0


def require_the_token(stack: LauncherStack, worker_port: int, *, applied: int) -> None:
    """The worker's metrics are on a port of their own; both ports require METRICS_TOKEN."""

    def fetch(path: str, token: str) -> tuple[int, str]:
        request = Request(
            f"http://127.0.0.1:{worker_port}{path}", headers={"Authorization": f"Bearer {token}"}
        )
        try:
            with urlopen(request, timeout=30) as response:
                return response.status, response.read().decode()
        except HTTPError as exc:
            return exc.code, ""

    status, text = fetch("/metrics", TOKEN)
    assert (status, _total(text, "prihod_webhooks_applied_total", {})) == (200, applied)
    assert fetch("/metrics", "wrong")[0] == 404
    assert fetch("/", TOKEN)[0] == 404
    stack.api_key = "wrong"
    assert stack.get("/metrics")[0] == 401
