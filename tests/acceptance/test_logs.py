"""Logs of real processes: an operation's whole history in JSON lines, and nothing confidential."""

import json
import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.acceptance.poison_settings import POISON, REPAIRED
from tests.acceptance.production import DOCUMENT, SECRET, deliver, webhook
from tests.factories import IVANOV, ROMASHKA, SAMPLE, VASILEK
from tests.harness.launcher_stack import LauncherStack
from tests.harness.servers import missing_reason

pytestmark = pytest.mark.skipif(bool(missing_reason("Redis")), reason="production needs a Redis")


@pytest.fixture(scope="module")
def stack(production: Callable[..., LauncherStack]) -> LauncherStack:
    return production()


def log_lines(stack: LauncherStack) -> list[tuple[str, str]]:
    """Return process and text of each line from a child process; the launcher's own lines are for people."""
    parted = [line.partition(" | ") for line in stack.output().splitlines()]
    return [(name.strip(), text) for name, mark, text in parted if mark and len(name) == 6]


def events_of(stack: LauncherStack, operation_id: object) -> list[tuple[str, dict[str, Any]]]:
    return [(name, json.loads(text)) for name, text in log_lines(stack) if str(operation_id) in text]


def wait_for_status(stack: LauncherStack, webhook: Mapping[str, object], status: str) -> None:
    stack.wait_until(
        lambda: stack.json(f"/api/operations/{webhook['operation_id']}/").get("status") == status, seconds=30
    )


def test_operation_id_finds_its_log_events_without_confidential_data(stack: LauncherStack) -> None:
    good, poison = webhook(), webhook(payer_inn=IVANOV, document_number=f"{POISON}{DOCUMENT}")
    assert deliver(stack, good)[0] == 200
    wait_for_status(stack, good, "applied")
    assert deliver(stack, {**good, "payer_inn": VASILEK}, {"X-Request-ID": "the-proxys-own-17"}) == (
        200,
        "the-proxys-own-17",
    )
    assert deliver(stack, webhook(amount="abc"))[0] == 400
    assert deliver(stack, webhook(), {"Authorization": "Bearer wrong"})[0] == 401
    assert deliver(stack, poison)[0] == 200
    wait_for_status(stack, poison, "failed")
    assert stack.get(f"/api/organizations/{ROMASHKA}/balance/")[0] == 200
    assert stack.get(f"/api/organizations/{SAMPLE}/balance/")[0] == 404
    (stack.data_dir / REPAIRED.name).touch()
    replayed = stack.manage("replay", "--id", str(poison["operation_id"]), "--reason", "repaired")
    assert replayed.returncode == 0, replayed.stderr
    wait_for_status(stack, poison, "applied")

    output = "\n".join([*(text for _, text in log_lines(stack)), replayed.stdout, replayed.stderr])
    for confidential in (ROMASHKA, VASILEK, IVANOV, SAMPLE, DOCUMENT, SECRET, "document_date"):
        assert confidential not in output, next(line for line in output.splitlines() if confidential in line)
    assert r"Incorrect string value: '\u2026' for column" in output

    events = [(name, line["event"]) for name, line in events_of(stack, good["operation_id"])]
    assert events == [("worker", "balance changed"), ("web", "conflict")]
    (_, conflict) = events_of(stack, good["operation_id"])[1]
    assert (conflict["request_id"], conflict["difference"]) == ("the-proxys-own-17", "inn")
    events = [(name, line["event"]) for name, line in events_of(stack, poison["operation_id"])]
    assert [event for event in events if not event[1].startswith("Task ")] == [
        *[("worker", "attempt failed"), ("worker", "webhook failed"), ("worker", "balance changed")],
    ]
    created = next(
        json.loads(text) for text in replayed.stderr.splitlines() if "operator action created" in text
    )
    assert (created["event"], created["operation_ids"]) == (
        "operator action created",
        [poison["operation_id"]],
    )
    assert created["by"].endswith("(command-line)")


def test_production_processes_log_one_json_object_per_line(stack: LauncherStack) -> None:
    """This test stops the stack, so it is the last one."""
    deliver(stack, good := webhook())
    wait_for_status(stack, good, "applied")
    with socket.create_connection(("127.0.0.1", stack.port)) as client:
        client.sendall(b"not HTTP at all\r\n\r\n")
        client.recv(1000)
    victim = stack.pids("gunicorn")[1]
    os.kill(victim, signal.SIGKILL)
    stack.wait_until(lambda: stack.pids("gunicorn")[1:] not in ([victim], []))
    stack.wait_until(lambda: "SIGKILL" in stack.output())
    for pid in stack.pids("celery\0--quiet\0-A\0worker\0worker")[1:]:
        os.kill(pid, signal.SIGKILL)
    stack.wait_until(lambda: "ForkPoolWorker" in stack.output())
    stack.stop()

    loggers = set()
    for name, text in log_lines(stack):
        if text.startswith("worker: Warm shutdown"):  # printed by Celery itself
            continue
        line = json.loads(text)
        assert line.keys() >= {"event", "level", "logger", "timestamp"}, line
        loggers.add((name, line["logger"]))
    assert {("web", "gunicorn.error"), ("worker", "ledger.posting"), ("worker", "multiprocessing")} <= loggers
