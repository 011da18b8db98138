"""Bursts of deliveries on as many connections at once: all are stored, none is refused."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.acceptance.conftest import StackBuilder
from tests.factories import terms
from tests.harness.launcher_stack import LauncherStack
from tests.markers import every_database
from tests.payloads import payment_body

pytestmark = every_database

SECONDS_MAX = 30.0  # 1.2 s on an idle machine


@pytest.fixture
def stack(new_stack: StackBuilder) -> Iterator[LauncherStack]:
    with new_stack() as stack:
        yield stack


async def deliver(port: int, body: bytes, connected: asyncio.Barrier) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await connected.wait()
    writer.write(
        b"POST /api/webhook/bank/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
        % (len(body), body)
    )
    status = int((await reader.readline()).split()[1])
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    answer = json.loads(await reader.readexactly(length))
    writer.close()
    return status, answer.get("status") or answer["error"]


async def burst(port: int, bodies: list[bytes]) -> Counter[tuple[int, str]]:
    connected = asyncio.Barrier(len(bodies))
    async with asyncio.timeout(SECONDS_MAX):
        return Counter(await asyncio.gather(*(deliver(port, body, connected) for body in bodies)))


def test_bursts_are_all_stored(stack: LauncherStack) -> None:
    delivered = 0
    for connections in (100, 500, 1000):
        bodies = [payment_body(terms()) for _ in range(connections)]
        assert asyncio.run(burst(stack.port, bodies)) == {(200, "success"): connections}
        same = payment_body(terms(operation_id=uuid4()))
        assert asyncio.run(burst(stack.port, [same] * connections)) == {
            (200, "success"): 1,
            (200, "already processed"): connections - 1,
        }
        delivered += connections + 1
    inn = json.loads(same)["payer_inn"]
    stack.wait_for_balance(inn, delivered * 100)
