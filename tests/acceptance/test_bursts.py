"""Bursts of deliveries on as many connections at once: all are stored, none is refused."""

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.acceptance.conftest import StackBuilder
from tests.factories import terms
from tests.harness.bursts import send_burst
from tests.harness.launcher_stack import LauncherStack
from tests.markers import every_database
from tests.payloads import payment_body

pytestmark = every_database


@pytest.fixture
def stack(new_stack: StackBuilder) -> Iterator[LauncherStack]:
    with new_stack(WEB_PROCESSES="2") as stack:
        yield stack


def test_bursts_are_all_stored(stack: LauncherStack) -> None:
    delivered = 0
    for connections in (100, 1000):
        bodies = [payment_body(terms()) for _ in range(connections)]
        assert send_burst(stack.port, bodies) == {(200, "success"): connections}
        same = payment_body(terms(operation_id=uuid4()))
        assert send_burst(stack.port, [same] * connections) == {
            (200, "success"): 1,
            (200, "already processed"): connections - 1,
        }
        delivered += connections + 1
    inn = json.loads(same)["payer_inn"]
    stack.wait_for_balance(inn, delivered * 100)
