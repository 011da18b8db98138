"""Metrics of real processes, compared with what was sent."""

import json
import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.conftest import StackBuilder
from tests.harness.launcher_stack import LauncherStack
from tests.harness.servers import free_port

INN = "7707083893"


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


def test_metrics_count_exactly_across_processes_and_kills(
    new_stack: StackBuilder,
) -> None:
    with new_stack(WEB_PROCESSES="2", WORKER_PROCESSES="2") as stack:
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


def test_worker_metrics_port_requires_the_token(
    new_stack: StackBuilder,
) -> None:
    port = free_port()
    with new_stack(METRICS_PORT=str(port), METRICS_TOKEN="s3cret") as stack:
        stack.deliver(webhook())
        stack.wait_for_balance(INN, 1)

        def fetch(path: str, **headers: str) -> tuple[int, str]:
            try:
                with urlopen(
                    Request(f"http://127.0.0.1:{port}{path}", headers=headers), timeout=30
                ) as response:
                    return response.status, response.read().decode()
            except HTTPError as exc:
                return exc.code, ""

        def applied_total(**headers: str) -> tuple[int, Any]:
            status, text = fetch("/metrics", **headers)
            return status, _total(text, "prihod_webhooks_applied_total", {})

        stack.wait_until(lambda: applied_total(Authorization="Bearer s3cret") == (200, 1))
        assert applied_total(Authorization="Bearer wrong")[0] == 404
        assert fetch("/")[0] == 404
        assert stack.get("/metrics")[0] == 401
