"""Random actions on random buckets: the books stay right, and what differs stays explained to the kopeck."""

import random

import pytest

from ingest.models import OperatorAction
from ledger.models import Payment
from statements import actions, buckets
from statements.buckets import Scope
from statements.importing import import_statement
from statements.models import Match, MatchKey, StatementLine
from tests.factories import make_organizations
from tests.reconciliation.reference import assert_totals_are_right
from tests.reconciliation.scenarios import play, statement_of
from tests.reconciliation.settlement import (
    OWN,
    apply_and_match,
    assert_books_are_right,
    notify,
    operator,
    run,
)
from tests.reconciliation.test_matching import random_scenario

Kind = OperatorAction.Kind
ACTIONS = 12
KINDS = sorted(actions.BUCKETS)


@pytest.mark.django_db
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 20))])
def test_random_actions_keep_the_books_and_the_identity(seed: int) -> None:
    chance = random.Random(seed)
    scenario = random_scenario(seed) | {"all_accounts_covered": True, "days_over": True}
    assert play(scenario) == []
    make_organizations("0033003303", "0044004404", f"@{OWN}", "@unknown")

    for _ in range(ACTIONS):
        settle_some(chance)
        if chance.random() < 0.3:  # the bank notifies something late
            notify(chance.choice(["0033003303", "0044004404"]), chance.choice(["7", "8"]), 100, day=5)
        if chance.random() < 0.2:  # the bank takes lines back, and others back again
            some = {**scenario, "lines": chance.sample(scenario["lines"], 20)}
            import_statement(statement_of(some), "a newer one")
            assert_totals_are_right()
        if chance.random() < 0.6:
            apply_and_match()
        assert buckets.identity(Scope()).unexplained == 0  # I7
        assert_totals_are_right()
    apply_and_match()

    assert buckets.identity(Scope()).unexplained == 0
    assert_books_are_right()
    posted = Match.objects.filter(rank=Match.Rank.POSTED).values_list("line", flat=True)
    assert len(posted) == len(set(posted))  # I5
    assert not Match.objects.filter(live=True, line__is_reversal=True).exists()


def settle_some(chance: random.Random) -> None:
    kind = chance.choice(KINDS)
    rows = [StatementLine.objects.all(), MatchKey.objects.all()]
    of_kind = [found for each in rows if (found := actions.eligible(kind, each)).exists()]
    if not of_kind:
        return
    chosen = chance.choice(of_kind)
    some = [pk for pk in chosen.order_by("pk").values_list("pk", flat=True) if chance.random() < 0.6]
    payments = Payment.objects.count()
    if some:
        action = actions.create(kind, chosen.filter(pk__in=some), operator(), f"by chance: {kind}")
        run(action)
    if kind not in {Kind.TAKE_BACK, Kind.BY_LINE}:
        assert Payment.objects.count() == payments  # money moves by corrections, or by the worker
