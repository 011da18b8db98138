"""The usual designs are right before they are compared: each credits an operation once."""

from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.http import HttpResponse
from django.test import RequestFactory

from bench.baselines import message_per_webhook, parsing_only, synchronous
from bench.load import open_loop
from bench.systems import InvalidRun, System, drain, require_stored
from core.http import View
from ledger.models import BalanceLog, Organization
from ledger.verification import verify
from tests.factories import ROMASHKA, VASILEK, balances, payment_body, terms

pytestmark = pytest.mark.django_db(transaction=True)
ON_SQLITE = settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
FIRST, SECOND, OTHERS = terms(100_00), terms(50_00), terms(7, inn=VASILEK)


@pytest.fixture
def post(rf: RequestFactory) -> Callable[[View, bytes], HttpResponse]:
    def post(endpoint: View, content: bytes) -> HttpResponse:
        return endpoint(rf.post("/", content, content_type="application/json"))

    return post


Post = Callable[[View, bytes], HttpResponse]


def test_the_synchronous_peer_credits_once(post: Post) -> None:
    answers = [post(synchronous.bank_webhook, payment_body(told)) for told in (FIRST, SECOND, FIRST, OTHERS)]

    assert [b"already processed" in answer.content for answer in answers] == [False, False, True, False]
    assert balances() == {ROMASHKA: 150_00, VASILEK: 7}
    assert list(verify()) == []


def test_the_peer_with_messages_credits_once(post: Post, sent: Callable[[], list[Any]]) -> None:
    for told in (FIRST, SECOND, FIRST, OTHERS):
        post(message_per_webhook.bank_webhook, payment_body(told))
    messages = sent()
    for _, arguments, _ in [*messages, *messages]:  # a message may come twice
        message_per_webhook.apply(**arguments)

    assert len(messages) == 3
    assert balances() == {ROMASHKA: 150_00, VASILEK: 7}
    call_command("verify_ledger")


def test_the_floor_keeps_nothing(post: Post) -> None:
    assert post(parsing_only.bank_webhook, payment_body(FIRST)).status_code == 200
    assert not Organization.objects.exists()
    assert not BalanceLog.objects.exists()


@pytest.mark.parametrize("peer", [parsing_only, synchronous, message_per_webhook])
def test_every_peer_refuses_what_our_door_refuses(peer: Any, post: Post) -> None:
    assert post(peer.bank_webhook, payment_body(FIRST, amount=-1)).status_code == 400


@pytest.mark.skipif(not ON_SQLITE, reason="the peers' own processes have their turn in the run on SQLite")
def test_a_peer_runs_behind_the_procfiles_commands() -> None:
    design = System.MESSAGE_PER_WEBHOOK
    with design.stack(embedded=True, only_the_door=True) as stack:
        sent = open_loop(stack.port, per_second=50, seconds=0.5)
        ok = sum(each.status == 200 for each in sent)
        drain(stack)
        require_stored(design.stored(stack), answered=ok, sent=len(sent))
        design.require_verified(stack)

    assert ok == len(sent) == 25


def test_what_was_answered_and_is_missing_is_seen() -> None:
    require_stored(10, answered=10, sent=12)
    with pytest.raises(InvalidRun, match="9 webhooks are stored, 10 were answered 200"):
        require_stored(9, answered=10, sent=12)
    with pytest.raises(InvalidRun):
        require_stored(13, answered=10, sent=12)
