"""A webhook that looks like an earlier payment is posted and marked, or held, for an operator to decide."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from ingest import inbox, suspected_duplicates
from ingest.models import SuspectedDuplicate, Webhook
from ingest.payment_fingerprint import payment_fingerprint
from ledger.models import Payment
from ledger.terms import PaymentTerms
from tests.factories import (
    MIDNIGHT_IN_MOSCOW,
    SUSPENSE,
    VASILEK,
    balances,
    make_organizations,
    make_webhook,
    terms,
)
from tests.query_plans import requires_mysql_explain, update_statistics
from tests.row_counts import count_rows_read
from worker import applying, duplicate_detection

pytestmark = pytest.mark.django_db
Status, State = Webhook.Status, SuspectedDuplicate.State
HOUR = timedelta(hours=1)


@pytest.fixture
def hold(settings: Any) -> None:
    settings.SUSPECTED_DUPLICATES = "hold"


def apply_all() -> None:
    make_organizations(*Webhook.objects.values_list("payer_inn", flat=True))
    while applying.apply_batch(500):
        pass


def pairs() -> dict[int, int]:
    return dict(SuspectedDuplicate.objects.values_list("webhook_id", "first_id"))


def statuses() -> list[str]:
    return list(Webhook.objects.order_by("id").values_list("status", flat=True))


def store(payment: PaymentTerms, source: str, body: bytes = b"") -> Webhook:
    inbox.store(payment, inbox.Delivery(body, source))
    return Webhook.objects.get(operation_id=payment.operation_id)


def test_mark_posts_the_later_payment_and_pairs_it_with_the_first() -> None:
    first, second, third = (make_webhook(terms(7_00)) for _ in range(3))

    apply_all()

    assert statuses() == [Status.APPLIED] * 3
    assert balances() == {first.payer_inn: 21_00}
    assert pairs() == {second.pk: first.pk, third.pk: first.pk}


def test_hold_posts_the_first_and_holds_the_others(hold: None) -> None:
    first, second, third = (make_webhook(terms(7_00)) for _ in range(3))

    apply_all()

    assert statuses() == [Status.APPLIED, Status.HELD, Status.HELD]
    assert balances() == {first.payer_inn: 7_00}
    assert pairs() == {second.pk: first.pk, third.pk: first.pk}


def test_off_looks_for_nothing(settings: Any) -> None:
    settings.SUSPECTED_DUPLICATES = "off"
    make_webhook(terms(7_00))
    make_webhook(terms(7_00))

    apply_all()

    assert statuses() == [Status.APPLIED] * 2
    assert not pairs()


def test_held_webhook_finds_its_first_in_an_earlier_batch(hold: None) -> None:
    first = make_webhook(terms(7_00))
    apply_all()
    later = make_webhook(terms(7_00))

    apply_all()

    assert pairs() == {later.pk: first.pk}
    assert statuses() == [Status.APPLIED, Status.HELD]


def test_of_two_the_one_applied_later_is_held_although_it_arrived_first(hold: None) -> None:
    early = make_webhook(terms(7_00), status=Status.FAILED)
    late = make_webhook(terms(7_00))
    apply_all()
    assert not pairs()  # a failed webhook has credited nothing

    Webhook.objects.filter(pk=early.pk).update(status=Status.RECEIVED)
    apply_all()

    assert pairs() == {early.pk: late.pk}
    assert balances() == {late.payer_inn: 7_00}


@pytest.mark.parametrize(
    "other",
    [
        {"inn": VASILEK},
        {"amount_kopecks": 7_01},
        {"document_number": "PAY-329"},
        {"document_date": MIDNIGHT_IN_MOSCOW - timedelta(microseconds=1)},
        {"document_date": MIDNIGHT_IN_MOSCOW + 24 * HOUR},
    ],
)
def test_another_payer_amount_number_or_day_in_moscow_is_another_payment(other: dict[str, Any]) -> None:
    make_webhook(terms(7_00))
    make_webhook(terms(**{"amount_kopecks": 7_00, **other}))

    apply_all()

    assert not pairs()


@pytest.mark.parametrize(
    "other",
    [
        {"document_number": "328"},
        {"document_number": "0000328"},
        {"document_number": "№ 3-28"},
        {"document_date": MIDNIGHT_IN_MOSCOW + 24 * HOUR - timedelta(microseconds=1)},
    ],
)
def test_number_is_compared_by_its_digits_and_the_date_by_its_day(other: dict[str, Any]) -> None:
    first = make_webhook(terms(7_00))
    later = make_webhook(terms(7_00, **other))

    apply_all()

    assert pairs() == {later.pk: first.pk}


def test_numbers_without_digits_are_compared_as_a_whole() -> None:
    first = make_webhook(terms(7_00, document_number="б/н"))
    make_webhook(terms(7_00, document_number="без номера"))
    later = make_webhook(terms(7_00, document_number="Б / Н"))

    apply_all()

    assert pairs() == {later.pk: first.pk}


def test_another_source_is_no_other_payment() -> None:
    first = make_webhook(terms(7_00))
    later = store(terms(7_00), "tochka")

    apply_all()

    assert pairs() == {later.pk: first.pk}


def test_suspense_is_left_out() -> None:
    make_webhook(terms(7_00, inn=SUSPENSE))
    make_webhook(terms(7_00, inn=SUSPENSE))

    apply_all()

    assert not pairs()


def test_account_counts_where_both_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also behind several twins with other accounts."""
    known = {b"a": ("1", "9"), b"b": ("2", "9"), b"c": ("3", "9")}
    monkeypatch.setattr(
        suspected_duplicates, "accounts", lambda webhook: known.get(bytes(webhook.body), ("", ""))
    )
    first, second, third = (store(terms(7_00), "tbank", body) for body in (b"a", b"b", b"c"))
    same_as_second, unknown = store(terms(7_00), "tochka", b"b"), store(terms(7_00), "bank", b"")

    apply_all()

    assert pairs() == {same_as_second.pk: second.pk, unknown.pk: first.pk}
    assert third.pk not in pairs()


def test_first_with_the_same_account_is_found_behind_an_applied_one_with_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(suspected_duplicates, "accounts", lambda webhook: (str(webhook.body), "9"))
    store(terms(7_00), "tbank", b"a")
    same_account = store(terms(7_00), "tbank", b"b")
    apply_all()
    later = store(terms(7_00), "tochka", b"b")

    apply_all()

    assert pairs() == {later.pk: same_account.pk}


def test_equal_fingerprints_of_different_payments_are_no_pair() -> None:
    make_webhook(terms(7_00))
    other = make_webhook(terms(8_00))
    Webhook.objects.filter(pk=other.pk).update(payment_fingerprint=payment_fingerprint(terms(7_00)))

    apply_all()

    assert not pairs()


def test_cleared_webhook_is_posted_and_not_held_again(hold: None) -> None:
    first, later = make_webhook(terms(7_00)), make_webhook(terms(7_00))
    apply_all()

    assert suspected_duplicates.clear([later.pk, first.pk]) == {later.pk}
    assert suspected_duplicates.clear([later.pk]) == set()
    apply_all()

    assert statuses() == [Status.APPLIED] * 2
    assert balances() == {first.payer_inn: 14_00}
    assert SuspectedDuplicate.objects.get().state == State.CLEARED


def test_operation_that_the_ledger_has_is_not_held(hold: None) -> None:
    payment = terms(7_00)
    posted, other = make_webhook(payment), make_webhook(terms(7_00))
    apply_all()
    suspected_duplicates.clear([other.pk])
    apply_all()
    SuspectedDuplicate.objects.all().delete()
    Webhook.objects.filter(pk=posted.pk).update(status=Status.RECEIVED)  # as after restoring an old inbox

    apply_all()

    assert statuses() == [Status.APPLIED] * 2
    assert not pairs()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("apply", [applying.apply_batch, None])
def test_equal_webhooks_of_concurrent_workers_hold_all_but_one(
    hold: None, apply: Callable[[int], int] | None
) -> None:
    """By batches of one webhook each, and by retries of single webhooks."""
    keys = [make_webhook(terms(7_00)).pk for _ in range(6)]

    def work(key: int) -> None:
        try:
            while Webhook.objects.received().exists():
                apply(1) if apply else applying.apply_ids([key])
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(statuses()) == [Status.APPLIED, *[Status.HELD] * 5]
    applied = Webhook.objects.get(status=Status.APPLIED)
    assert set(pairs().values()) == {applied.pk}
    assert sum(balances().values()) == Payment.objects.get().amount_kopecks == 7_00


@requires_mysql_explain
@pytest.mark.django_db(transaction=True)  # ANALYZE ends a test's own transaction
def test_rows_read_do_not_grow_with_the_square_of_the_look_alikes() -> None:
    """Thousands of payments that look alike, as a load test sends, waited behind others."""
    keys = [make_webhook(terms(7_00)).pk for _ in range(400)]
    Webhook.objects.filter(pk__in=keys[200:]).update(status=Status.APPLIED)
    update_statistics()
    batch = set(keys[:100])

    assert count_rows_read(lambda: duplicate_detection.pair_suspects(batch)) < 4_000
    assert len(pairs()) == len(batch)
