"""The latency is measured on the webhooks of its own senders only."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from bench.load import SentWebhook
from bench.measures import latency

NOW = datetime(2026, 11, 28, tzinfo=UTC)


class Inbox:
    """A fake stack whose webhooks were applied so many milliseconds after their receipt."""

    port = 0

    def __init__(self, duration: dict[UUID, float]) -> None:
        self._took = duration

    def sql(self, statement: str, *_: object) -> list[Any]:
        if "MAX(id)" in statement:
            return [(0,)]
        return [
            (key.hex, NOW, NOW + timedelta(milliseconds=duration)) for key, duration in self._took.items()
        ]


def test_latency_ignores_late_webhooks_of_the_closed_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = [SentWebhook(uuid4(), b"", due=0.0, status=200) for _ in range(3)]
    monkeypatch.setattr(latency, "open_loop", lambda *_, **__: sent)
    monkeypatch.setattr(latency, "drain", lambda _: 0.0)
    inbox: Any = Inbox({**dict.fromkeys([each.operation_id for each in sent], 20.0), uuid4(): 900.0})

    assert latency.p99_at(inbox, per_second=3, seconds=1) == pytest.approx(20)
