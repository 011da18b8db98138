import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest

from monitoring.charts import BOTTOM, Bucket, axis_max, buckets, throughput_chart
from monitoring.throughput import MINUTE

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def bucket(n: int, received: float, applied: float) -> Bucket:
    return Bucket(NOON + n * MINUTE, MINUTE, (received, applied))


def chart(*points: Bucket) -> str:
    return throughput_chart(points, tick_minutes=10, label="tested")


def test_chart_is_well_formed_and_needs_neither_script_nor_style() -> None:
    svg = chart(*(bucket(n, n, n) for n in range(60)))

    assert ET.fromstring(svg).tag == "svg"
    assert not re.search(r"<script|<style|style=|\son\w+=", svg)
    assert 'role="img" aria-label="tested"' in svg


def test_bucket_tooltip_has_its_throughput() -> None:
    assert "12:01: 1\N{NO-BREAK SPACE}234 received, 0.5 applied" in chart(
        bucket(0, 0, 0), bucket(1, 1234, 0.5)
    )


def test_zero_throughput_is_a_flat_line() -> None:
    svg = chart(bucket(0, 0, 0), bucket(1, 0, 0))
    assert re.search(rf'class="received" d="M\S+ {BOTTOM}\.?0?H', svg)
    assert 'class="applied" d=""' in svg


def test_uncounted_minute_is_a_gap_instead_of_zero() -> None:
    svg = chart(bucket(0, 5, 5), Bucket(NOON + MINUTE, MINUTE, None), bucket(2, 5, 5))

    line = re.findall(r'class="received" d="([^"]*)"', svg)[0]
    assert line.count("M") == 2
    assert "12:01: not counted" in svg


def test_time_labels_are_at_round_minutes() -> None:
    svg = chart(*(bucket(n, 1, 1) for n in range(-5, 25)))
    assert re.findall(r'class="time"[^>]*>([^<]*)<', svg) == ["12:00", "12:10", "12:20"]


def test_buckets_align_to_the_clock_and_average_counted_minutes() -> None:
    minutes = {NOON + n * MINUTE: (n, 2 * n) if n != 12 else None for n in range(5, 20)}

    first, second = buckets(minutes, 10)

    assert (first.started_at, first.duration) == (NOON, timedelta(minutes=10))
    assert first.per_minute == (7.0, 14.0)
    assert second.started_at == NOON + timedelta(minutes=10)
    assert second.per_minute == (pytest.approx(133 / 9), pytest.approx(266 / 9))
    assert buckets({NOON: None}, 10)[0].per_minute is None


@pytest.mark.parametrize(("value", "top"), [(0, 2), (2, 2), (3, 4), (5, 10), (11, 20), (99, 100), (101, 200)])
def test_axis_max_is_round_with_an_integer_half(value: float, top: int) -> None:
    assert axis_max(value) == top
