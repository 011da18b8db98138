"""Counting those who ask in vain, at a time that the tests set."""

from collections.abc import Callable

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from api import misses
from api.misses import MISSES_PER_MINUTE_MAX, too_many
from api.models import MissCount
from tests.reading import read_only
from tests.threads import at_once

pytestmark = pytest.mark.django_db
NOON = 1_800_000_000.0  # the first second of a minute


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    def set_clock(seconds: float) -> None:
        monkeypatch.setattr("api.misses.time.time", lambda: NOON + seconds)

    set_clock(0)
    return set_clock


def test_each_minute_has_its_own_share_of_misses(at: Callable[[float], None]) -> None:
    assert [too_many("a") for _ in range(MISSES_PER_MINUTE_MAX)] == [0] * MISSES_PER_MINUTE_MAX
    assert too_many("a") == 60
    at(59.9)
    assert too_many("a") == 1
    assert too_many("b") == 0
    at(60)
    assert [too_many("a") for _ in range(MISSES_PER_MINUTE_MAX)] == [0] * MISSES_PER_MINUTE_MAX
    assert too_many("a") == 60


def test_a_caller_is_counted_by_address_and_by_key(at: Callable[[float], None]) -> None:
    for number in range(MISSES_PER_MINUTE_MAX):
        assert too_many(f"address {number}", "key") == 0

    assert too_many("another address", "key")
    assert not too_many("another address")


def test_over_the_limit_nothing_is_written(at: Callable[[float], None]) -> None:
    for _ in range(MISSES_PER_MINUTE_MAX):
        too_many("a")
    with CaptureQueriesContext(connection) as queries:
        too_many("a")

    assert [query["sql"][:6] for query in queries] == ["SELECT"]


def test_however_many_strangers_come_the_rows_are_bounded(
    at: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(misses, "BUCKETS", 8)
    for number in range(100):
        too_many(f"stranger {number}")

    assert MissCount.objects.count() == 8


@pytest.mark.django_db(transaction=True)
def test_a_miss_that_cannot_be_counted_is_answered_all_the_same(at: Callable[[float], None]) -> None:
    with read_only():
        assert [too_many("a") for _ in range(MISSES_PER_MINUTE_MAX + 1)] == [0] * (MISSES_PER_MINUTE_MAX + 1)

    assert not MissCount.objects.exists()


@pytest.mark.skipif(
    connection.vendor == "sqlite", reason="there a miss waits for no other, and isn't counted"
)
@pytest.mark.django_db(transaction=True)
def test_several_processes_count_together_and_exactly(at: Callable[[float], None]) -> None:
    each = MISSES_PER_MINUTE_MAX // 4

    def miss() -> list[int]:
        return [too_many("a", "b") for _ in range(each)]

    assert at_once([miss] * 4) == [[0] * each] * 4
    assert set(MissCount.objects.values_list("misses", flat=True)) == {MISSES_PER_MINUTE_MAX}
    assert too_many("a")
