"""Sber's envelope, as its documentation shows it; there is no public sample of a whole operation."""

import json
from typing import Any

import pytest

from ingest.banks import sber
from ingest.exceptions import InvalidDelivery
from ingest.versions import DELETED


def event(**content: Any) -> bytes:
    return json.dumps(
        {
            "content": content,
            "eventType": "eventType",
            "eventVersion": "eventVersion",
            "eventTime": "2026-03-16T10:00:00.000Z",
        }
    ).encode()


def test_key_and_version_of_an_operation() -> None:
    first = sber.operation_version(event(operationId="20260316:1", version=1))
    deleted = sber.operation_version(event(operationId="20260316:1", version=DELETED))

    assert (first.version, deleted.version) == (1, DELETED)
    assert first.operation_id == deleted.operation_id


def test_external_id_without_an_operation_id() -> None:
    external = sber.operation_version(event(operationId=None, externalId="7", version="2"))

    assert external.version == 2
    assert external.operation_id != sber.operation_version(event(operationId="7", version=2)).operation_id


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"operationId": "7"}, "content.version: is missing"),
        ({"operationId": "7", "version": None}, "content.version: must be a string"),
        ({"operationId": "7", "version": -1}, "content.version: must be"),
        ({"operationId": "7", "version": DELETED + 1}, "content.version: must be a whole number"),
        ({"version": 1}, "content.externalId: is missing"),
        ({"operationId": "7" * 65, "version": 1}, "content.operationId: must have 1 to 64"),
    ],
)
def test_unreadable_key_is_refused(content: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidDelivery) as raised:
        sber.operation_version(event(**content))

    assert str(raised.value).startswith(problem)
