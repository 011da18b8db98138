"""Each baseline system credits an operation once."""

import asyncio
from collections.abc import Callable
from inspect import iscoroutine
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.http import HttpResponse
from django.test import RequestFactory, override_settings

from bench.baselines import message_per_webhook, parsing_only, synchronous
from bench.load import open_loop
from bench.systems import InvalidRun, System, drain, require_stored
from core.http import View
from ledger.models import BalanceLog, Organization
from ledger.verification import verify
from tests.factories import ROMASHKA, VASILEK, balances, payment_body, terms
from web.webhook_application import coroutines_by_path

pytestmark = pytest.mark.django_db(transaction=True)
ON_SQLITE = "sqlite" in settings.DATABASES["default"]["ENGINE"]
FIRST, SECOND, OTHERS = terms(100_00), terms(50_00), terms(7, inn=VASILEK)


@pytest.fixture
def post(rf: RequestFactory) -> Callable[[View, bytes], HttpResponse]:
    def post(endpoint: View, content: bytes) -> HttpResponse:
        response: Any = endpoint(rf.post("/", content, content_type="application/json"))
        return asyncio.run(response) if iscoroutine(response) else response

    return post


Post = Callable[[View, bytes], HttpResponse]


def test_synchronous_baseline_credits_once(post: Post) -> None:
    responses = [
        post(synchronous.bank_webhook, payment_body(payment)) for payment in (FIRST, SECOND, FIRST, OTHERS)
    ]

    assert [b"already processed" in response.content for response in responses] == [False, False, True, False]
    assert balances() == {ROMASHKA: 150_00, VASILEK: 7}
    assert list(verify()) == []


def test_message_baseline_credits_once(post: Post, sent: Callable[[], list[Any]]) -> None:
    for payment in (FIRST, SECOND, FIRST, OTHERS):
        post(message_per_webhook.bank_webhook, payment_body(payment))
    messages = sent()
    for _, arguments, _ in [*messages, *messages]:  # a message may be delivered twice
        message_per_webhook.apply(**arguments)

    assert len(messages) == 3
    assert balances() == {ROMASHKA: 150_00, VASILEK: 7}
    call_command("verify_ledger")


def test_parsing_only_baseline_stores_nothing(post: Callable[[Any, bytes], HttpResponse]) -> None:
    assert post(parsing_only.bank_webhook, payment_body(FIRST)).status_code == 200
    assert not Organization.objects.exists()
    assert not BalanceLog.objects.exists()


@pytest.mark.parametrize("baseline", [parsing_only, synchronous, message_per_webhook])
def test_every_baseline_refuses_an_invalid_delivery(baseline: Any, post: Post) -> None:
    assert post(baseline.bank_webhook, payment_body(FIRST, amount=-1)).status_code == 400


@pytest.mark.process
@pytest.mark.skipif(not ON_SQLITE, reason="processes of baselines are tested in the run on SQLite")
def test_baseline_runs_behind_stock_gunicorn() -> None:
    system = System.MESSAGE_PER_WEBHOOK
    with system.stack(embedded=True, only_web=True) as stack:
        sent = open_loop(stack.port, per_second=50, seconds=0.5)
        assert {each.status for each in sent} == {200}
        drain(stack)
        require_stored(system.stored(stack), acknowledged=len(sent), sent=len(sent))
        system.require_verified(stack)


@override_settings(ROOT_URLCONF="bench.baselines.urls", BASELINE="bench.baselines.parsing_only")
def test_parsing_only_is_called_as_prihods_view_is() -> None:
    assert list(coroutines_by_path()) == ["/api/webhook/bank/"]


def test_missing_acknowledged_webhooks_are_detected() -> None:
    require_stored(10, acknowledged=10, sent=12)
    with pytest.raises(InvalidRun, match="9 webhooks are stored, 10 were answered 200"):
        require_stored(9, acknowledged=10, sent=12)
    with pytest.raises(InvalidRun):
        require_stored(13, acknowledged=10, sent=12)
