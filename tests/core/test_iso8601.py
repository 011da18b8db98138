from datetime import UTC, datetime, timedelta, timezone

import pytest

from core import iso8601


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-04-28T00+03", datetime(2024, 4, 27, 21, tzinfo=UTC)),
        ("20240427T2100Z", datetime(2024, 4, 27, 21, tzinfo=UTC)),
        ("2024-04-27t21:00:00,5z", datetime(2024, 4, 27, 21, 0, 0, 500_000, tzinfo=UTC)),
        ("2024-W17-6 21+03", datetime(2024, 4, 27, 21, tzinfo=timezone(timedelta(hours=3)))),
        ("2024W17T0000Z", datetime(2024, 4, 22, tzinfo=UTC)),
    ],
)
def test_iso_8601_is_parsed(text: str, moment: datetime) -> None:
    assert iso8601.parse(text) == moment


@pytest.mark.parametrize(
    "text",
    [
        *("2024-04-27T24:00:00Z", "2024-04-27T24:00", "20240427T240000,0Z", "2024-04-27T24Z"),
        *("2024-04-27T21:00:60Z", "2024-04-27T21:60Z", "2024-04-27T21:00+03:60", "2024-04-27T21:00+24:00"),
        *("2024-04-27T21.5Z", "2024-04-27T21:00.5Z", "2024-04-27T21:Z", "2024-04-27T21:00:00.Z"),
        *("2024-04-27T21:00:00:00Z", "2024-04-27x21:00Z", "2024-118", "2024118", "2024-W17-8", "2024-W54-1"),
        *("", "2024", "2024-04", "2024-02-30", "0000-01-01", "٢٠٢٤-04-27", "2024-04-27T21:00 Z"),
    ],
)
def test_format_that_python_versions_parse_differently_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        iso8601.parse(text)
