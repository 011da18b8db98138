"""What the latency is taken from: the webhooks of its own senders, and no others."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from bench.load import SentWebhook
from bench.measures import latency

NOW = datetime(2026, 11, 28, tzinfo=UTC)


class Inbox:
    """Stands for a house; its webhooks were applied so many milliseconds after their receipt."""

    port = 0

    def __init__(self, duration: dict[UUID, float]) -> None:
        self._took = duration

    def sql(self, statement: str, *_: object) -> list[Any]:
        if "MAX(id)" in statement:
            return [(0,)]
        return [
            (key.hex, NOW, NOW + timedelta(milliseconds=duration)) for key, duration in self._took.items()
        ]


def test_what_the_closed_loop_left_on_its_way_is_no_webhook_of_the_open_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = [SentWebhook(uuid4(), b"", due=0.0, status=200) for _ in range(3)]
    monkeypatch.setattr(latency, "open_loop", lambda *_, **__: sent)
    monkeypatch.setattr(latency, "drain", lambda _: 0.0)
    inbox: Any = Inbox({**dict.fromkeys([each.operation_id for each in sent], 20.0), uuid4(): 900.0})

    assert latency.p99_at(inbox, per_second=3, seconds=1) == pytest.approx(20)
