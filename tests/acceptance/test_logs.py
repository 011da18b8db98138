"""What real processes log: a payment's whole story, one JSON object a line, and nothing confidential."""

import json
import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.acceptance.house import House, until
from tests.acceptance.poisoned import POISON, REPAIRED
from tests.acceptance.production import DOCUMENT, SECRET, deliver, webhook
from tests.cast import IVANOV, ROMASHKA, SAMPLE, VASILEK
from tests.servers import lacking

pytestmark = pytest.mark.skipif(bool(lacking("Redis")), reason="production has a Redis, and here is none")


def lines(house: House) -> list[tuple[str, str]]:
    """Process and text of each line that a process of the house wrote; the launcher's own are for people."""
    parted = [line.partition(" | ") for line in house.output().splitlines()]
    return [(name.strip(), text) for name, mark, text in parted if mark and len(name) == 6]


def story(house: House, operation_id: object) -> list[tuple[str, dict[str, Any]]]:
    return [(name, json.loads(text)) for name, text in lines(house) if str(operation_id) in text]


def becomes(house: House, told: Mapping[str, object], status: str) -> None:
    until(lambda: house.json(f"/api/operations/{told['operation_id']}/").get("status") == status, house, 30)


def test_an_operation_id_finds_the_whole_story_and_nothing_confidential_is_said(
    production: Callable[..., House],
) -> None:
    house = production()
    good, poison = webhook(), webhook(payer_inn=IVANOV, document_number=f"{POISON}{DOCUMENT}")
    assert deliver(house, good)[0] == 200
    becomes(house, good, "applied")
    assert deliver(house, {**good, "payer_inn": VASILEK}, {"X-Request-ID": "the-proxys-own-17"}) == (
        200,
        "the-proxys-own-17",
    )
    assert deliver(house, webhook(amount="abc"))[0] == 400
    assert deliver(house, webhook(), {"Authorization": "Bearer wrong"})[0] == 401
    assert deliver(house, poison)[0] == 200
    becomes(house, poison, "failed")
    assert house.get(f"/api/organizations/{ROMASHKA}/balance/")[0] == 200
    assert house.get(f"/api/organizations/{SAMPLE}/balance/")[0] == 404
    (house.data_dir / REPAIRED.name).touch()
    replayed = house.manage("replay", "--id", str(poison["operation_id"]), "--reason", "repaired")
    assert replayed.returncode == 0, replayed.stderr
    becomes(house, poison, "applied")

    said = "\n".join([*(text for _, text in lines(house)), replayed.stdout, replayed.stderr])
    for confidential in (ROMASHKA, VASILEK, IVANOV, SAMPLE, DOCUMENT, SECRET, "document_date"):
        assert confidential not in said, next(line for line in said.splitlines() if confidential in line)
    assert r"Incorrect string value: '\u2026' for column" in said

    told = [(name, line["event"]) for name, line in story(house, good["operation_id"])]
    assert told == [("worker", "balance changed"), ("web", "conflict")]
    (_, conflict) = story(house, good["operation_id"])[1]
    assert (conflict["request_id"], conflict["difference"]) == ("the-proxys-own-17", "inn")
    told = [(name, line["event"]) for name, line in story(house, poison["operation_id"])]
    assert [event for event in told if not event[1].startswith("Task ")] == [
        *[("worker", "attempt failed"), ("worker", "webhook failed"), ("worker", "balance changed")],
    ]
    begun = next(json.loads(text) for text in replayed.stderr.splitlines() if "act begun" in text)
    assert (begun["event"], begun["operation_ids"]) == ("act begun", [poison["operation_id"]])
    assert begun["by"].endswith("(command-line)")


def test_each_line_of_each_process_is_one_json_object_in_production(
    production: Callable[..., House],
) -> None:
    house = production(WEB_PROCESSES="1")
    deliver(house, told := webhook())
    becomes(house, told, "applied")
    with socket.create_connection(("127.0.0.1", house.port)) as stranger:
        stranger.sendall(b"no HTTP at all\r\n\r\n")
        stranger.recv(1000)
    victim = house.pids("gunicorn")[1]
    os.kill(victim, signal.SIGKILL)
    until(lambda: house.pids("gunicorn")[1:] not in ([victim], []), house)
    until(lambda: "SIGKILL" in house.output(), house)
    for pid in house.pids("celery\0--quiet\0-A\0worker\0worker")[1:]:
        os.kill(pid, signal.SIGKILL)
    until(lambda: "ForkPoolWorker" in house.output(), house)
    house.stop()

    spoken = set()
    for name, text in lines(house):
        if text.startswith("worker: Warm shutdown"):  # Celery's own, to whoever stops it in a terminal
            continue
        line = json.loads(text)
        assert line.keys() >= {"event", "level", "logger", "timestamp"}, line
        spoken.add((name, line["logger"]))
    assert {("web", "gunicorn.error"), ("worker", "ledger.posting"), ("worker", "multiprocessing")} <= spoken
