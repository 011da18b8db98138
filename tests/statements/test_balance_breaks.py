"""I10: of an account, the closing balance of a day is the opening balance of the next, over all files."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import accumulate

import pytest

from statements import coverage
from statements.coverage import Break, Period
from statements.importing import import_statement
from statements.models import OwnAccount
from statements.period_proof import prove
from tests.reconciliation.scenarios import rubles
from tests.statements.files import OWN, document, section, statement

pytestmark = pytest.mark.django_db
FIRST = date(2026, 3, 1)
DAYS = 8
WRITTEN = date(2026, 4, 1)
SEEDS = [*range(3), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 20))]


@dataclass(frozen=True)
class File:
    """A statement of the days `first` to `last`, from 0, that proves itself.

    `opening` kopecks differ from the truth by `shift`. One that was written on its last day lacks that day's
    credit. `written` is the order in which the bank wrote the files.
    """

    first: int
    last: int
    written: int
    shift: int = 0
    is_early: bool = False

    def body(self, credits_: Sequence[int]) -> bytes:
        """Return the file of an account that received `credits_`, one each day."""
        days = range(self.first, self.last + (not self.is_early))
        opening = sum(credits_[: self.first]) + self.shift
        came_in = sum(credits_[day] for day in days)
        sums = section(
            ДатаНачала=_day(self.first),
            ДатаКонца=_day(self.last),
            НачальныйОстаток=rubles(opening),
            ВсегоПоступило=rubles(came_in),
            КонечныйОстаток=rubles(opening + came_in),
        )
        documents = [
            document(Номер="7", Дата=_day(day), ДатаПоступило=_day(day), Сумма=rubles(credits_[day]))
            for day in days
        ]
        created_on = FIRST + timedelta(days=self.last) if self.is_early else WRITTEN
        return statement(
            sums,
            *documents,
            ДатаСоздания=created_on.strftime("%d.%m.%Y"),
            ВремяСоздания=f"09:00:{self.written:02}",
        ).encode("cp1251")


def _day(number: int) -> str:
    return (FIRST + timedelta(days=number)).strftime("%d.%m.%Y")


def random_files(chance: random.Random) -> list[File]:
    """Return statements of any days, that overlap, repeat and leave gaps; some were written too early."""
    files = []
    for written in range(6):
        first, last = sorted(chance.choices(range(DAYS), k=2))
        files.append(File(first, last, written, is_early=chance.random() < 0.3))
    return files


def shown_breaks() -> list[Break]:
    """Return the breaks; the proof of the whole period shows the same, and then does not hold."""
    account = OwnAccount.objects.get()
    last = FIRST + timedelta(days=DAYS - 1)
    proof = prove(account, Period(FIRST, last), today=WRITTEN)
    found = list(coverage.breaks())
    assert proof.breaks == found
    assert not (found and proof.holds)
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_balances_of_one_account_break_nowhere_but_where_one_is_changed(seed: int) -> None:
    chance = random.Random(seed)
    OwnAccount.objects.create(number=OWN, since=FIRST)
    credits_ = [chance.randrange(1, 100_00) for _ in range(DAYS)]
    closings = list(accumulate(credits_))
    files = random_files(chance)
    files.append(File(0, chance.randrange(DAYS - 1), len(files)))
    chance.shuffle(files)
    for file in files:
        import_statement(file.body(credits_), "")
        assert shown_breaks() == []

    known = {file.last for file in files if not file.is_early} - {DAYS - 1}
    broken = chance.choice(sorted(known))
    wrong = File(broken + 1, DAYS - 1, written=20, shift=chance.choice([-1, 1, 5_00]))
    import_statement(wrong.body(credits_), "")
    at = FIRST + timedelta(days=broken)
    assert shown_breaks() == [Break(OWN, at, closings[broken], closings[broken] + wrong.shift)]

    import_statement(replace(wrong, written=21, shift=0).body(credits_), "the same days again")
    assert shown_breaks() == []
