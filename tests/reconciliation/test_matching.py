"""Properties of the matching: exact, one to one, explained to the kopeck, and independent of the order."""

import random
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from ledger.models import Payment
from statements import buckets
from statements.buckets import Scope
from statements.importing import import_statement
from statements.matching import match
from statements.models import LineSighting, Match, MatchKey, OwnAccount, StatementBalance, StatementLine
from tests.reconciliation.reference import reference_matches
from tests.reconciliation.scenarios import play, store
from tests.statements.files import OWN, document, section, statement

CORPUS = Path(__file__).parents[1] / "statements/corpus"
SEEDS = [*range(4), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(4, 40))]
FIRST, SECOND = (CORPUS / f"52{name}.txt" for name in ("a-overlap-first", "b-overlap-second"))


def random_scenario(seed: int) -> dict[str, Any]:
    """Return a scenario of few payers, amounts, numbers and days, so that nearly everything may collide."""
    chance = random.Random(seed)
    inns, numbers = ["0033003303", "0044004404"], ["7", "007", "A-7", "a-7", "8", "б/н", "9 9", "0"]

    def day(first: int = 1, last: int = 9) -> str:
        return f"2026-03-{chance.randint(first, last):02}"

    def one() -> dict[str, Any]:
        return {
            "inn": chance.choice(inns),
            "kopecks": chance.choice([100, 100, 200]),
            "number": chance.choice(numbers),
        }

    webhooks = [
        one()
        | {
            "id": f"{seed} {number}",
            "document_date": f"{day()}T12:00:00+03:00",
            "status": chance.choice(["applied", "applied", "applied", "failed", "received", "dismissed"]),
        }
        for number in range(25)
    ]
    lines = [
        one()
        | {"line": number, "creditable": True, "date": day(), "booked_on": day(), "reversal": not number % 9}
        for number in range(1, 26)
    ]
    for line in lines[:4]:
        line |= {"inn": None, "creditable": False}
    return {
        "name": f"random {seed}",
        "webhooks": webhooks,
        "lines": lines,
        "expect": {},
        "all_accounts_covered": seed % 3 > 0,
        "days_over": seed % 4 > 0,
    }


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.django_db
def test_matches_are_those_of_the_rules_and_the_sums_explain_ledger_and_bank(seed: int) -> None:
    assert play(random_scenario(seed)) == []  # I7: nothing is unexplained

    found = set(Match.objects.filter(live=True).values_list("line_id", "webhook_id", "rank"))
    assert found == reference_matches()
    balance = StatementBalance.objects.get()  # I6
    in_period = Scope(OWN, balance.first_day, balance.last_day)
    assert sum(total.kopecks for total in buckets.totals(in_period).values()) == balance.credited


@pytest.mark.django_db
def test_matching_again_changes_nothing() -> None:
    play(random_scenario(3))
    before = [outcome(), buckets.totals(Scope())]

    match()
    assert [outcome(), buckets.totals(Scope())] == before
    match(is_full=True)
    assert [outcome(), buckets.totals(Scope())] == before


def outcome() -> list[Any]:
    """Return lines, sightings, buckets and pairs, named by content instead of by primary keys."""
    line = ("line__fingerprint", "line__ordinal", "webhook__document_number", "webhook__document_date")
    columns = ("fingerprint", "ordinal", "position", "bucket", "is_withdrawn")
    return [
        sorted(StatementLine.objects.values_list(*columns)),
        sorted(LineSighting.objects.values_list("line__fingerprint", "line__ordinal", "statement__sha256")),
        sorted(Match.objects.filter(live=True).values_list(*line, "rank")),
        sorted(MatchKey.objects.values_list("webhook__document_number", "day", "bucket")),
    ]


def sequences() -> list[tuple[Path, ...]]:
    return [
        order for count in (2, 3) for order in product([FIRST, SECOND], repeat=count) if len(set(order)) == 2
    ]


def notified(number: str, day: int, status: str = "applied") -> dict[str, Any]:
    inn = {"103": "0033003303", "104": "0044004404"}.get(number, "0055005512")
    kopecks = {"103": 1000, "104": 2000}.get(number, 3000)
    at = f"2026-03-{day:02}T10:00:00+03:00"
    return {
        "id": number,
        "inn": inn,
        "kopecks": kopecks,
        "number": number,
        "document_date": at,
        "status": status,
    }


@pytest.mark.django_db
def test_any_order_and_repetition_of_overlapping_files_ends_alike() -> None:
    """I8, I9: and no import posts anything."""
    OwnAccount.objects.create(number=OWN, since="2026-01-01")
    for webhook in (notified("103", 16), notified("104", 17, "failed"), notified("105", 18)):
        store(webhook)
    payments = set(Payment.objects.values_list("pk", flat=True))
    outcomes = []
    for order in sequences():
        with transaction.atomic():
            for path in order:
                import_statement(path.read_bytes(), path.name)
                match()
            assert set(Payment.objects.values_list("pk", flat=True)) == payments
            outcomes.append(outcome())
            transaction.set_rollback(True)

    assert all(found == outcomes[0] for found in outcomes)
    assert len(outcomes) == len(list(permutations("ab"))) + 6
    assert [len(part) for part in outcomes[0]] == [4, 5, 2, 3]


@pytest.mark.django_db
@pytest.mark.parametrize("later_first", [True, False])
def test_line_that_agrees_better_takes_the_webhook_over(later_first: bool) -> None:
    OwnAccount.objects.create(number=OWN, since="2026-01-01")
    store(notified("103", 9))
    days = (11, 9) if later_first else (9, 11)
    for day in days:
        at = f"{day:02}.03.2026"
        balances = section(ДатаНачала=at, ДатаКонца=at)
        line = document(Номер="103", Дата=at, ДатаПоступило=at)
        import_statement(statement(balances, line, ДатаСоздания="12.03.2026").encode("cp1251"), at)
        match()

    assert [(found.line.date.day, found.rank) for found in Match.objects.filter(live=True)] == [(9, 1)]


@pytest.mark.django_db
def test_database_refuses_a_second_live_match() -> None:
    """I5: of a line and of a webhook."""
    play(random_scenario(0))
    one, other = Match.objects.filter(live=True)[:2]
    for fields in (
        {"line": one.line, "webhook": other.webhook},
        {"line_id": other.line_id, "webhook": one.webhook},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            Match.objects.create(rank=4, **fields)
    Match.objects.create(line=one.line, webhook=one.webhook, rank=4, live=None)  # undone ones are not limited
