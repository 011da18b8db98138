"""manage.py reverse and manage.py assign."""

from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from ingest import inbox, operator_actions
from ingest.models import OperatorAction
from tests.factories import ROMASHKA, SUSPENSE, VASILEK, balances, terms
from worker.applying import apply_batch

pytestmark = pytest.mark.django_db(transaction=True)


def posted(inn: str) -> str:
    payment = terms(100_00, inn=inn)
    inbox.store(payment, inbox.Delivery(b""))
    apply_batch(10)
    return str(payment.operation_id)


def run(*arguments: str) -> str:
    """Run the command with a reason; return its output with plain blanks."""
    output = StringIO()
    call_command(*arguments, "--reason", "a mistake", stdout=output)
    return output.getvalue().replace("\N{NO-BREAK SPACE}", " ")


def test_reverse_prints_the_balances_and_is_recorded() -> None:
    operation_id = posted(ROMASHKA)

    assert run("reverse", operation_id) == f"{ROMASHKA}: 100,00 ₽ → 0,00 ₽\n"

    assert balances() == {ROMASHKA: 0}
    action = OperatorAction.objects.get()
    assert (action.kind, action.reason) == ("reverse", "a mistake")
    with pytest.raises(CommandError, match="refused: the operation is reversed already"):
        run("reverse", operation_id)


def test_undone_reversal_posts_the_payment_again() -> None:
    operation_id = posted(ROMASHKA)
    run("reverse", operation_id)

    assert run("reverse", operation_id, "--undo") == f"{ROMASHKA}: 0,00 ₽ → 100,00 ₽\n"

    with pytest.raises(CommandError, match="refused: the operation stands under these terms already"):
        run("reverse", operation_id, "--undo")


def test_assign_refuses_what_is_no_inn() -> None:
    with pytest.raises(CommandError, match="not an INN of 10 or 12 digits: 77070838"):
        run("assign", posted(SUSPENSE), "--inn", "77070838")
    assert not OperatorAction.objects.exists()


def test_database_that_fails_leaves_the_action_to_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    operation_id = posted(ROMASHKA)

    def locked(*_: object, **__: object) -> int:
        raise OperationalError("Lock wait timeout exceeded")

    monkeypatch.setattr("ingest.operator_actions.run_chunk", locked)
    with pytest.raises(CommandError, match=r"recorded as operator action \d+, which a worker carries out"):
        run("reverse", operation_id)
    monkeypatch.undo()
    operator_actions.run_pending(1)

    assert balances() == {ROMASHKA: 0}


def test_dry_run_changes_nothing() -> None:
    operation_id = posted(ROMASHKA)

    assert run("reverse", operation_id, "--dry-run") == f"would change: {ROMASHKA}: 100,00 ₽ → 0,00 ₽\n"

    assert balances() == {ROMASHKA: 100_00}
    assert not OperatorAction.objects.exists()


def test_assign_and_undo() -> None:
    operation_id = posted(SUSPENSE)

    run("assign", operation_id, "--inn", VASILEK)
    assert balances() == {SUSPENSE: 0, VASILEK: 100_00}
    run("assign", operation_id, "--undo")

    assert balances() == {SUSPENSE: 100_00, VASILEK: 0}


def test_unknown_operation_is_an_error() -> None:
    with pytest.raises(CommandError, match="no webhook"):
        run("reverse", str(uuid4()))
