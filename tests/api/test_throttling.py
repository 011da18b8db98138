"""The limit of failed requests, with a clock that the tests set."""

from collections.abc import Callable

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from api import throttling
from api.models import FailedReadCount
from api.throttling import FAILURES_PER_MINUTE_MAX, throttle_seconds
from tests.concurrency import run_concurrently
from tests.row_counts import read_only_session

pytestmark = pytest.mark.django_db
NOON = 1_800_000_000.0  # the first second of a minute


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    def set_clock(seconds: float) -> None:
        monkeypatch.setattr("api.throttling.time.time", lambda: NOON + seconds)

    set_clock(0)
    return set_clock


def test_failure_limit_resets_each_minute(at: Callable[[float], None]) -> None:
    assert [throttle_seconds("a") for _ in range(FAILURES_PER_MINUTE_MAX)] == [0] * FAILURES_PER_MINUTE_MAX
    assert throttle_seconds("a") == 60
    at(59.9)
    assert throttle_seconds("a") == 1
    assert throttle_seconds("b") == 0
    at(60)
    assert [throttle_seconds("a") for _ in range(FAILURES_PER_MINUTE_MAX)] == [0] * FAILURES_PER_MINUTE_MAX
    assert throttle_seconds("a") == 60


def test_failures_count_per_address_and_per_key(at: Callable[[float], None]) -> None:
    for number in range(FAILURES_PER_MINUTE_MAX):
        assert throttle_seconds(f"address {number}", "key") == 0

    assert throttle_seconds("another address", "key")
    assert not throttle_seconds("another address")


def test_caller_over_the_limit_causes_no_write(at: Callable[[float], None]) -> None:
    for _ in range(FAILURES_PER_MINUTE_MAX):
        throttle_seconds("a")
    with CaptureQueriesContext(connection) as queries:
        throttle_seconds("a")

    assert [query["sql"][:6] for query in queries] == ["SELECT"]


def test_many_callers_share_a_bounded_number_of_rows(
    at: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttling, "BUCKETS", 8)
    for number in range(100):
        throttle_seconds(f"client {number}")

    assert FailedReadCount.objects.count() == 8


@pytest.mark.django_db(transaction=True)
def test_failure_that_cannot_be_counted_is_not_throttled(at: Callable[[float], None]) -> None:
    with read_only_session():
        assert [throttle_seconds("a") for _ in range(FAILURES_PER_MINUTE_MAX + 1)] == [0] * (
            FAILURES_PER_MINUTE_MAX + 1
        )

    assert not FailedReadCount.objects.exists()


@pytest.mark.skipif(connection.vendor == "sqlite", reason="on SQLite a concurrent failure is not counted")
@pytest.mark.django_db(transaction=True)
def test_concurrent_failures_are_counted_exactly(at: Callable[[float], None]) -> None:
    each = FAILURES_PER_MINUTE_MAX // 4

    def fail() -> list[int]:
        return [throttle_seconds("a", "b") for _ in range(each)]

    assert run_concurrently([fail] * 4) == [[0] * each] * 4
    assert set(FailedReadCount.objects.values_list("failures", flat=True)) == {FAILURES_PER_MINUTE_MAX}
    assert throttle_seconds("a")
