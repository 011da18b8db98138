"""What real processes log: a payment's whole story, one JSON object a line, and nothing confidential."""

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
from tests.harness.launcher_stack import LauncherStack, wait_until
from tests.harness.servers import lacking

pytestmark = pytest.mark.skipif(bool(lacking("Redis")), reason="production has a Redis, and here is none")


def lines(stack: LauncherStack) -> list[tuple[str, str]]:
    """Process and text of each line that a process of the house wrote; the launcher's own are for people."""
    parted = [line.partition(" | ") for line in stack.output().splitlines()]
    return [(name.strip(), text) for name, mark, text in parted if mark and len(name) == 6]


def story(stack: LauncherStack, operation_id: object) -> list[tuple[str, dict[str, Any]]]:
    return [(name, json.loads(text)) for name, text in lines(stack) if str(operation_id) in text]


def becomes(stack: LauncherStack, told: Mapping[str, object], status: str) -> None:
    wait_until(
        lambda: stack.json(f"/api/operations/{told['operation_id']}/").get("status") == status, stack, 30
    )


def test_an_operation_id_finds_the_whole_story_and_nothing_confidential_is_said(
    production: Callable[..., LauncherStack],
) -> None:
    stack = production()
    good, poison = webhook(), webhook(payer_inn=IVANOV, document_number=f"{POISON}{DOCUMENT}")
    assert deliver(stack, good)[0] == 200
    becomes(stack, good, "applied")
    assert deliver(stack, {**good, "payer_inn": VASILEK}, {"X-Request-ID": "the-proxys-own-17"}) == (
        200,
        "the-proxys-own-17",
    )
    assert deliver(stack, webhook(amount="abc"))[0] == 400
    assert deliver(stack, webhook(), {"Authorization": "Bearer wrong"})[0] == 401
    assert deliver(stack, poison)[0] == 200
    becomes(stack, poison, "failed")
    assert stack.get(f"/api/organizations/{ROMASHKA}/balance/")[0] == 200
    assert stack.get(f"/api/organizations/{SAMPLE}/balance/")[0] == 404
    (stack.data_dir / REPAIRED.name).touch()
    replayed = stack.manage("replay", "--id", str(poison["operation_id"]), "--reason", "repaired")
    assert replayed.returncode == 0, replayed.stderr
    becomes(stack, poison, "applied")

    said = "\n".join([*(text for _, text in lines(stack)), replayed.stdout, replayed.stderr])
    for confidential in (ROMASHKA, VASILEK, IVANOV, SAMPLE, DOCUMENT, SECRET, "document_date"):
        assert confidential not in said, next(line for line in said.splitlines() if confidential in line)
    assert r"Incorrect string value: '\u2026' for column" in said

    told = [(name, line["event"]) for name, line in story(stack, good["operation_id"])]
    assert told == [("worker", "balance changed"), ("web", "conflict")]
    (_, conflict) = story(stack, good["operation_id"])[1]
    assert (conflict["request_id"], conflict["difference"]) == ("the-proxys-own-17", "inn")
    told = [(name, line["event"]) for name, line in story(stack, poison["operation_id"])]
    assert [event for event in told if not event[1].startswith("Task ")] == [
        *[("worker", "attempt failed"), ("worker", "webhook failed"), ("worker", "balance changed")],
    ]
    begun = next(
        json.loads(text) for text in replayed.stderr.splitlines() if "operator action created" in text
    )
    assert (begun["event"], begun["operation_ids"]) == ("operator action created", [poison["operation_id"]])
    assert begun["by"].endswith("(command-line)")


def test_each_line_of_each_process_is_one_json_object_in_production(
    production: Callable[..., LauncherStack],
) -> None:
    stack = production(WEB_PROCESSES="1")
    deliver(stack, told := webhook())
    becomes(stack, told, "applied")
    with socket.create_connection(("127.0.0.1", stack.port)) as stranger:
        stranger.sendall(b"no HTTP at all\r\n\r\n")
        stranger.recv(1000)
    victim = stack.pids("gunicorn")[1]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: stack.pids("gunicorn")[1:] not in ([victim], []), stack)
    wait_until(lambda: "SIGKILL" in stack.output(), stack)
    for pid in stack.pids("celery\0--quiet\0-A\0worker\0worker")[1:]:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "ForkPoolWorker" in stack.output(), stack)
    stack.stop()

    spoken = set()
    for name, text in lines(stack):
        if text.startswith("worker: Warm shutdown"):  # Celery's own, to whoever stops it in a terminal
            continue
        line = json.loads(text)
        assert line.keys() >= {"event", "level", "logger", "timestamp"}, line
        spoken.add((name, line["logger"]))
    assert {("web", "gunicorn.error"), ("worker", "ledger.posting"), ("worker", "multiprocessing")} <= spoken
