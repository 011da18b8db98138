"""The chart of a balance."""

import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest

from ledger.admin import balance_chart
from ledger.money import format_rubles
from ledger.statement import CHART_POINTS_MAX
from tests.admin_client import superuser_client
from tests.ledger.test_organization_page import shown
from tests.ledger.test_queries import make_log, total

pytestmark = pytest.mark.django_db


def test_chart_is_well_formed_and_ends_with_the_closing_balance() -> None:
    content = shown(superuser_client(), make_log(250)).content.decode()

    svg = re.search(r'<svg class="chart balance".*?</svg>', content, re.DOTALL)
    assert svg
    assert ET.fromstring(svg[0]).tag == "svg"
    assert f"{format_rubles(total(250))} after entry 250" in svg[0]
    assert svg[0].count("<title>") <= CHART_POINTS_MAX + 1


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(minutes=9), "12:30:15"),
        (timedelta(hours=23), "12:30"),
        (timedelta(days=7), "16 Mar 12:30"),
        (timedelta(days=8), "2026-03-16"),
    ],
)
def test_times_are_as_precise_as_the_chart(span: timedelta, text: str) -> None:
    assert balance_chart._format_time(datetime(2026, 3, 16, 12, 30, 15, tzinfo=UTC), span) == text


@pytest.mark.parametrize(
    ("low", "high", "levels"),
    [
        (0, 0, [0, 1]),
        (0, 3_33, [0, 1, 2, 3, 4]),
        (0, 333_475_97, [0, 100_000, 200_000, 300_000, 400_000]),
        (1_000_00, 1_000_00, [0, 500, 1000]),
        (990_00, 1_000_00, [990, 995, 1000]),
        (400_00, 1_000_00, [0, 500, 1000]),
    ],
)
def test_chart_levels_are_round_and_start_at_zero_unless_little_changed(
    low: int, high: int, levels: list[int]
) -> None:
    assert balance_chart.levels_between(low, high) == [level * 1_00 for level in levels]


def test_chart_levels_include_the_largest_balance() -> None:
    levels = balance_chart.levels_between(0, 2**63 - 1)
    assert len(levels) <= balance_chart.LEVELS_MAX + 1
    assert levels[-1] >= 2**63 - 1
