"""The newest proven statement of a day decides which of its lines stand."""

import random
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from statements.coverage import ONE_DAY, Period
from statements.models import BankStatement, OwnAccount, StatementBalance
from statements.withdrawal import _newest_by_day

pytestmark = pytest.mark.django_db
FIRST = date(2026, 3, 1)


@pytest.mark.parametrize("seed", range(20))
def test_days_have_the_newest_of_their_proven_statements(seed: int) -> None:
    chance = random.Random(seed)
    account = OwnAccount.objects.create(number="40702810900000000001", since=FIRST)
    found = [(_random_statement(account, chance)) for _ in range(chance.randint(0, 6))]
    changed = Period(FIRST + 2 * ONE_DAY, FIRST + 11 * ONE_DAY)

    parts = list(_newest_by_day(account, changed))

    by_day = {
        FIRST + number * ONE_DAY: max(
            (age for periods, age in found if any(first <= number <= last for first, last in periods)),
            default=None,
        )
        for number in range(2, 12)
    }
    expanded = {
        date.fromordinal(day): age
        for period, age in parts
        for day in range(period.first.toordinal(), period.last.toordinal() + 1)
    }
    assert expanded == {day: age for day, age in by_day.items() if age}
    assert all(one[1] != other[1] or one[0].last + ONE_DAY < other[0].first for one, other in pairwise(parts))


def _random_statement(
    account: OwnAccount, chance: random.Random
) -> tuple[list[tuple[int, int]], tuple[datetime, int]]:
    """Return the periods of a new proven statement, in days from FIRST, and its age."""
    written = datetime(2026, 4, chance.randint(1, 3), tzinfo=UTC)
    statement = BankStatement.objects.create(
        sha256=f"{chance.getrandbits(256):064x}", verdict="ok", created_at=written
    )
    firsts = sorted(chance.sample(range(14), chance.randint(1, 3)))
    periods = [(first, first + chance.randint(0, 4)) for first in firsts]
    for first, last in periods:
        days = {"first_day": FIRST + timedelta(first), "last_day": FIRST + timedelta(last)}
        StatementBalance.objects.create(statement=statement, account=account, proof="holds", **days)
    return periods, (written, statement.pk)
