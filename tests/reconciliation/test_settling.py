"""Operators settle the buckets; every condition is checked again when the action runs."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from ingest import action_progress, operator_actions
from ingest.exceptions import NothingToDo, StaleConfirmation
from ingest.models import OperatorAction, SuspectedDuplicate, Webhook
from ledger import corrections
from ledger.models import Payment
from statements import actions, buckets, posting_conditions
from statements.buckets import Scope
from statements.importing import import_statement
from statements.matching import is_due, match, match_if_due
from statements.models import ActionItem, Bucket, Decision, Match, MatchKey, StatementLine
from tests.reconciliation.settlement import (
    OWN,
    apply_all,
    apply_and_match,
    assert_books_are_right,
    filled,
    import_lines,
    line,
    lines_in,
    money,
    notify,
    operator,
    run,
    settle,
    statement_of,
)

pytestmark = pytest.mark.django_db
Kind = OperatorAction.Kind
R, V = "0033003303", "0044004404"


def test_posting_twice_posts_once() -> None:
    """I5: two clicks on one bucket; the second is refused, also under another file."""
    import_lines(line(R, "1", 10_00), came_in=10_00)
    both = [actions.create(Kind.POST, lines_in(Bucket.MISSING_WEBHOOK), operator(), "once") for _ in "ab"]

    assert [run(action) for action in both] == [["done"], ["changed"]]
    import_lines(line(R, "1", 10_00), line(V, "2", 5_00), came_in=15_00, ВремяСоздания="10:00:00")
    apply_and_match()

    assert money() == {R: 10_00}
    assert filled() == {"matched": (1, 10_00), "missing_webhook": (1, 5_00)}
    assert_books_are_right()


def test_line_whose_payment_was_taken_back_is_not_posted_again() -> None:
    import_lines(line(R, "1", 10_00), came_in=10_00)
    settle(Kind.POST, lines_in(Bucket.MISSING_WEBHOOK))
    apply_and_match()
    webhook = Webhook.objects.get()
    reverse(webhook)

    assert filled() == {"missing_webhook": (1, 10_00)}
    assert settle(Kind.POST, lines_in(Bucket.MISSING_WEBHOOK)) == ["exists"]
    assert money() == {}


def reverse(webhook: Webhook) -> None:
    corrections.correct(webhook.operation_id, corrections.reversal)
    match()


def test_nothing_is_posted_from_an_unproven_statement_until_it_is_accepted() -> None:
    """I9."""
    statement = import_lines(line(R, "1", 10_00), came_in=11_00)
    assert statement.verdict == "unproven"
    assert settle(Kind.POST, lines_in(Bucket.MISSING_WEBHOOK)) == ["unproven"]

    assert run(actions.accept(statement, operator(), "the bank forgot a fee")) == ["done"]
    assert settle(Kind.POST, lines_in(Bucket.MISSING_WEBHOOK)) == ["done"]
    apply_and_match()
    assert money() == {R: 10_00}


def test_line_that_only_an_unproven_newer_statement_has_is_not_posted() -> None:
    import_lines(came_in=0)
    import_lines(line(R, "1", 10_00), came_in=11_00, ДатаСоздания="18.03.2026")

    assert settle(Kind.POST, lines_in(Bucket.MISSING_WEBHOOK)) == ["unproven"]


def test_line_of_a_day_that_was_not_over_is_not_posted() -> None:
    import_lines(line(R, "1", 10_00), came_in=10_00, ДатаСоздания="16.03.2026")

    assert settle(Kind.POST, lines_in(Bucket.MISSING_WEBHOOK)) == ["unproven"]


def test_line_is_not_posted_while_the_bank_may_still_notify_it(settings: Any) -> None:
    over = posting_conditions.postable_from(timezone.localdate(timezone=settings.STATEMENT_TIME_ZONE))
    assert over > timezone.now() + timedelta(hours=24)
    import_lines(line(R, "1", 10_00), came_in=10_00)
    settings.STATEMENT_POST_AFTER_HOURS = 24 * 30 * 12 * 20

    assert settle(Kind.POST, lines_in(Bucket.MISSING_WEBHOOK)) == ["too_early"]


def test_stale_confirmation_and_empty_bucket_create_nothing() -> None:
    import_lines(line(R, "1", 10_00), came_in=10_00)
    missing = lines_in(Bucket.MISSING_WEBHOOK)
    confirmed = actions.state_digest(Kind.POST, missing)
    import_lines(line(V, "2", 10_00), line(R, "1", 10_00), came_in=20_00, ВремяСоздания="10:00:00")

    with pytest.raises(StaleConfirmation):
        actions.create(Kind.POST, missing, operator(), "because", confirmed)
    with pytest.raises(NothingToDo):
        actions.create(Kind.MATCH, missing, operator(), "because")
    with pytest.raises(ValueError, match="reason"):
        actions.create(Kind.POST, missing, operator(), " ")
    assert not OperatorAction.objects.exists()


def test_suggestion_is_confirmed_and_undone() -> None:
    notify(R, "1", 10_00)
    apply_all()
    import_lines(line(R, "2", 10_00), came_in=10_00)
    assert filled() == {"suggested": (1, 10_00)}

    assert settle(Kind.MATCH, lines_in(Bucket.SUGGESTED)) == ["done"]
    match(is_full=True)
    assert filled() == {"matched": (1, 10_00)}
    assert Match.objects.get(live=True).rank == Match.Rank.CONFIRMED

    assert settle(Kind.UNMATCH, lines_in(Bucket.MATCHED)) == ["done"]
    assert filled() == {"suggested": (1, 10_00)}
    assert Match.objects.filter(live=None).count() == 1


def test_undone_match_is_not_found_again_until_it_is_reopened() -> None:
    notify(R, "1", 10_00)
    apply_all()
    import_lines(line(R, "1", 10_00), came_in=10_00)

    assert settle(Kind.UNMATCH, lines_in(Bucket.MATCHED)) == ["done"]
    match(is_full=True)
    assert filled() == {"missing_webhook": (1, 10_00), "not_on_statement": (1, 10_00)}

    assert settle(Kind.REOPEN, lines_in(Bucket.MISSING_WEBHOOK)) == ["done"]
    assert filled() == {"matched": (1, 10_00)}


def test_separated_line_may_be_posted() -> None:
    notify(R, "1", 10_00)
    apply_all()
    import_lines(line(R, "1", 10_00), came_in=10_00)
    settle(Kind.UNMATCH, lines_in(Bucket.MATCHED))

    assert settle(Kind.POST, lines_in(Bucket.MISSING_WEBHOOK)) == ["done"]
    with pytest.raises(NothingToDo):  # what was posted is undone by a reversal only
        settle(Kind.UNMATCH, lines_in(Bucket.UNPOSTED))
    apply_and_match()

    assert filled() == {"matched": (1, 10_00), "duplicate": (1, 10_00)}
    assert money() == {R: 20_00}


def test_excluded_line_is_not_posted_and_comes_back() -> None:
    import_lines(line(R, "1", 10_00), came_in=10_00)

    assert settle(Kind.EXCLUDE, lines_in(Bucket.MISSING_WEBHOOK)) == ["done"]
    match(is_full=True)
    assert filled() == {"excluded": (1, 10_00)}
    assert not buckets.count_waiting(Scope())

    assert settle(Kind.REOPEN, lines_in(Bucket.EXCLUDED)) == ["done"]
    assert filled() == {"missing_webhook": (1, 10_00)}


def test_differences_are_kept_and_explained() -> None:
    """Of a pair, and of a webhook without a line. Both are settled, and both come back."""
    notify(R, "1", 10_00)
    notify(V, "2", 7_00)
    apply_all()
    import_lines(line(R, "1", 9_00), came_in=9_00)

    assert settle(Kind.KEEP, lines_in(Bucket.AMOUNT_MISMATCH)) == ["done"]
    assert settle(Kind.KEEP, buckets.webhooks(Scope(), Bucket.NOT_ON_STATEMENT)) == ["done"]
    match(is_full=True)

    assert filled() == {"kept": (1, 9_00), "kept_webhook": (1, 7_00)}
    terms = buckets.identity(Scope()).terms
    assert (terms[Bucket.KEPT], terms[Bucket.KEPT_WEBHOOK]) == (1_00, 7_00)
    assert not buckets.count_waiting(Scope())
    assert money() == {R: 10_00, V: 7_00}

    assert settle(Kind.UNMATCH, lines_in(Bucket.KEPT)) == ["done"]
    assert settle(Kind.REOPEN, buckets.webhooks(Scope(), Bucket.KEPT_WEBHOOK)) == ["done"]
    assert filled() == {"amount_mismatch": (1, 9_00), "not_on_statement": (1, 7_00)}


def test_payer_is_replaced_by_the_statement() -> None:
    notify(R, "1", 10_00)
    apply_all()
    import_lines(line(V, "1", 10_00), came_in=10_00)

    assert settle(Kind.BY_LINE, lines_in(Bucket.PAYER_MISMATCH)) == ["done"]

    assert money() == {V: 10_00}
    assert filled() == {"matched": (1, 10_00)}
    assert_books_are_right()


def test_payment_that_the_bank_reversed_is_taken_back() -> None:
    notify(R, "1", 10_00)
    apply_all()
    import_lines(line(R, "1", 10_00), line(R, "1", -10_00), came_in=0)
    assert filled() == {"matched": (1, 10_00), "reversed_by_bank": (1, -10_00)}

    assert settle(Kind.TAKE_BACK, lines_in(Bucket.REVERSED_BY_BANK)) == ["done"]

    assert money() == {}
    assert filled() == {"excluded": (2, 0)}
    assert_books_are_right()


def test_duplicate_that_a_newer_statement_explains_is_not_reversed() -> None:
    """The statement is imported after the action was created, and not matched yet."""
    notify(R, "1", 10_00)
    notify(R, "1", 10_00)
    apply_all()
    import_lines(line(R, "1", 10_00), came_in=10_00)
    action = actions.create(Kind.TAKE_BACK, buckets.webhooks(Scope(), Bucket.DUPLICATE), operator(), "twice")
    import_lines(line(R, "1", 10_00), line(R, "1", 10_00), came_in=20_00, ВремяСоздания="10:00:00")

    assert run(action) == ["changed"]

    assert money() == {R: 20_00}
    assert filled() == {"matched": (2, 20_00)}


def test_line_that_is_imported_while_an_action_runs_is_matched_before_the_next_chunk() -> None:
    for _ in range(3):
        notify(R, "1", 10_00)
    apply_all()
    import_lines(line(R, "1", 10_00), came_in=10_00)
    action = actions.create(Kind.TAKE_BACK, buckets.webhooks(Scope(), Bucket.DUPLICATE), operator(), "twice")
    operator_actions.run_chunk(action.pk)
    newer = statement_of(line(R, "1", 10_00), line(R, "1", 10_00), came_in=20_00, ВремяСоздания="10:00:00")
    import_statement(newer, "kl_to_1c.txt")

    assert run(action) == ["done", "changed"]

    assert money() == {R: 20_00}
    assert filled() == {"matched": (2, 20_00)}


def test_what_an_action_settles_is_matched_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A matching for each chunk would take the square of the items."""
    matchings: list[object] = []
    monkeypatch.setattr(actions, "CHUNK_ITEMS", 1)
    monkeypatch.setattr(actions, "match", lambda: matchings.append(match()))
    import_lines(*(line(R, str(number), 10_00) for number in range(3)), came_in=30_00)
    action = actions.create(Kind.EXCLUDE, lines_in(Bucket.MISSING_WEBHOOK), operator(), "all")

    for _ in range(2):
        operator_actions.run_chunk(action.pk)
        assert not is_due()
    operator_actions.run_chunk(action.pk)

    assert len(matchings) == 1  # before the first chunk
    assert is_due()
    match_if_due()
    assert filled() == {"excluded": (3, 30_00)}


def test_payment_that_was_corrected_meanwhile_is_not_corrected_again() -> None:
    notify(R, "1", 10_00)
    apply_all()
    import_lines(came_in=0)
    action = actions.create(
        Kind.TAKE_BACK, buckets.webhooks(Scope(), Bucket.NOT_ON_STATEMENT), operator(), "not ours"
    )
    reverse(Webhook.objects.get())

    assert run(action) == ["changed"]
    assert Payment.objects.count() == 2


def test_payment_that_was_corrected_since_the_matching_is_not_corrected_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The correction commits between the matching of the chunk and the item."""
    webhook = notify(R, "1", 10_00)
    apply_all()
    import_lines(came_in=0)
    missing = buckets.webhooks(Scope(), Bucket.NOT_ON_STATEMENT)
    action = actions.create(Kind.TAKE_BACK, missing, operator(), "not ours")
    corrections.correct(webhook.operation_id, lambda found: replace(found.terms, amount_kopecks=9_00))
    monkeypatch.setattr(actions, "match", lambda: None)

    assert run(action) == ["ledger"]
    assert money() == {R: 9_00}


def test_payment_is_replaced_once_and_by_a_proven_line_only() -> None:
    notify(R, "1", 10_00)
    apply_all()
    statement = import_lines(line(V, "1", 10_00), came_in=11_00)
    differing = lines_in(Bucket.PAYER_MISMATCH)
    assert settle(Kind.BY_LINE, differing) == ["unproven"]
    assert money() == {R: 10_00}

    run(actions.accept(statement, operator(), "the bank forgot a fee"))
    both = [actions.create(Kind.BY_LINE, differing, operator(), "by the bank") for _ in "ab"]
    assert [run(action) for action in both] == [["done"], ["changed"]]
    assert money() == {V: 10_00}
    assert_books_are_right()


def test_statement_is_accepted_once() -> None:
    statement = import_lines(line(R, "1", 10_00), came_in=11_00)
    first, second = [actions.accept(statement, operator(), "a fee is missing") for _ in "ab"]

    assert [run(first), run(second)] == [["done"], ["changed"]]
    statement.refresh_from_db()
    assert statement.accepted_by == first


def test_reversing_the_duplicate_decides_the_suspected_pair() -> None:
    notify(R, "1", 10_00)
    second = notify(R, "1", 10_00)
    apply_all()
    import_lines(line(R, "1", 10_00), came_in=10_00)
    pair = SuspectedDuplicate.objects.get(pk=second.pk)
    assert (pair.state, pair.is_shown_once) == ("open", True)

    assert settle(Kind.TAKE_BACK, buckets.webhooks(Scope(), Bucket.DUPLICATE)) == ["done"]

    pair.refresh_from_db()
    assert (pair.state, pair.decided_by.kind) == ("confirmed", "take_back")
    assert money() == {R: 10_00}


def test_statement_that_shows_both_clears_the_pair() -> None:
    notify(R, "1", 10_00)
    second = notify(R, "1", 10_00)
    apply_all()
    import_lines(line(R, "1", 10_00), line(R, "1", 10_00), came_in=20_00)

    pair = SuspectedDuplicate.objects.get(pk=second.pk)
    assert (pair.state, pair.decided_by) == ("cleared", None)


def test_statement_releases_a_held_webhook_only_if_it_proves_itself(settings: Any) -> None:
    settings.SUSPECTED_DUPLICATES = "hold"
    notify(R, "1", 10_00)
    apply_all()
    notify(R, "1", 10_00)
    apply_all()
    two = [line(R, "1", 10_00), line(R, "1", 10_00)]
    import_lines(*two, came_in=21_00)
    apply_and_match()
    assert filled() == {"matched": (1, 10_00), "unposted": (1, 10_00)}

    import_lines(*two, came_in=20_00)
    apply_and_match()
    assert filled() == {"matched": (2, 20_00)}
    assert money() == {R: 20_00}


def test_withdrawn_line_takes_its_webhook_out_of_the_matched() -> None:
    import_lines(line(R, "1", 10_00), came_in=10_00)
    settle(Kind.POST, lines_in(Bucket.MISSING_WEBHOOK))
    apply_and_match()
    import_lines(came_in=0, ДатаСоздания="18.03.2026")

    assert filled() == {"not_on_statement": (1, 10_00)}
    assert settle(Kind.TAKE_BACK, buckets.webhooks(Scope(), Bucket.NOT_ON_STATEMENT)) == ["done"]
    assert money() == {}


def test_action_resumes_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "CHUNK_ITEMS", 2)
    import_lines(*(line(R, str(number), 10_00) for number in range(1, 6)), came_in=50_00)
    action = actions.create(Kind.POST, lines_in(Bucket.MISSING_WEBHOOK), operator(), "all")

    assert operator_actions.run_chunk(action.pk) == 2
    progress = action_progress.progress(action)
    assert (progress.processed, progress.total, progress.is_finished) == (2, 5, False)
    assert operator_actions.pending_ids() == [action.pk]
    assert filled() == {"unposted": (2, 20_00), "missing_webhook": (3, 30_00)}

    assert not operator_actions.run_pending(60)
    apply_and_match()
    assert filled() == {"matched": (5, 50_00)}
    assert ActionItem.objects.filter(outcome="done").count() == 5
    assert money() == {R: 50_00}
    assert not Decision.objects.exists()
    assert set(MatchKey.objects.values_list("state", flat=True)) == {"posted"}
    assert StatementLine.objects.filter(account__number=OWN).count() == 5
