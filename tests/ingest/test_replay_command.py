from datetime import UTC, datetime
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from ingest.command_line import COMMAND_LINE
from ingest.management.commands.replay import Command
from ingest.models import OperatorAction, Webhook
from tests.factories import make_webhook

pytestmark = pytest.mark.django_db
FAILED, RECEIVED = Webhook.Status.FAILED, Webhook.Status.RECEIVED


def replay(*arguments: str) -> str:
    """Run the command; return its output."""
    output = StringIO()
    call_command("replay", *arguments, stdout=output)
    return output.getvalue()


def statuses() -> list[str]:
    return list(Webhook.objects.order_by("id").values_list("status", flat=True))


def failed(**fields: Any) -> Webhook:
    return make_webhook(status=FAILED, **fields)


@pytest.mark.parametrize("spelling", ["{}", "{{{}}}", "urn:uuid:{}"])
def test_id_is_replayed_in_any_uuid_format(spelling: str) -> None:
    webhook = failed()
    failed()

    assert replay("--id", spelling.format(str(webhook.operation_id).upper())) == "Webhooks: 1 replayed.\n"

    assert statuses() == [RECEIVED, FAILED]


def test_several_ids_are_replayed_and_skipped_ones_counted() -> None:
    webhooks = [failed(), failed(), make_webhook(status=Webhook.Status.APPLIED), make_webhook()]

    output = replay(*(word for webhook in webhooks for word in ("--id", webhook.operation_id.hex)))

    assert output == ("Webhooks: 2 replayed, 1 already applied, 1 already queued.\n")


def test_failed_option_replays_all_failed() -> None:
    failed(), failed(), make_webhook(status=Webhook.Status.DISMISSED)

    assert replay("--failed") == "Webhooks: 2 replayed.\n"

    assert statuses() == [RECEIVED, RECEIVED, Webhook.Status.DISMISSED]


@pytest.mark.parametrize("since", ["2026-05-01", "2026-05-01T00:00:00", "2026-05-01T03:00:00+03:00"])
def test_since_option_skips_older_webhooks(since: str) -> None:
    failed(received_at=datetime(2026, 4, 30, 23, 59, 59, tzinfo=UTC))
    failed(received_at=datetime(2026, 5, 1, tzinfo=UTC))

    assert replay("--failed", "--since", since) == "Webhooks: 1 replayed.\n"

    assert statuses() == [FAILED, RECEIVED]


def test_dry_run_prints_counts_and_changes_nothing() -> None:
    one, other = failed(), make_webhook()

    output = replay("--dry-run", "--id", str(one.operation_id), "--id", str(other.operation_id))

    assert output == "Dry run: 1 replayed, 1 already queued.\n"
    assert statuses() == [FAILED, RECEIVED]
    assert not OperatorAction.objects.exists()


def test_unknown_id_exits_1_after_replaying_the_others() -> None:
    webhook, unknown = failed(), uuid4()

    with pytest.raises(CommandError, match=str(unknown)) as raised:
        replay("--id", str(webhook.operation_id), "--id", str(unknown))

    assert raised.value.returncode == 1
    assert statuses() == [RECEIVED]


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--dry-run",
        "--failed --id ccf0a86d-041b-4991-bcf7-e2352f7b8a4a",
        "--id 17",
        "--failed --since yesterday",
        "--id ccf0a86d-041b-4991-bcf7-e2352f7b8a4a --since 2026-05-01",
    ],
)
def test_invalid_options_exit_2(
    arguments: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django.db.connections.close_all", lambda: None)  # the test's own stays open

    with pytest.raises(SystemExit) as raised:
        Command().run_from_argv(["manage.py", "replay", *arguments.split()])

    assert raised.value.code == 2
    assert capfd.readouterr().err


def test_audit_trail_names_the_operating_system_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "boris")
    failed()

    replay("--failed", "--reason", "the bug is repaired")
    failed()
    replay("--failed")

    actions = OperatorAction.objects.order_by("id")
    assert {(action.by.username, action.by_name) for action in actions} == {
        ("command-line", "boris (command-line)")
    }
    assert [action.reason for action in actions] == ["the bug is repaired", "none given"]


def test_command_line_user_cannot_log_in() -> None:
    failed()
    replay("--failed")
    failed()
    replay("--failed")

    user = User.objects.get(username=COMMAND_LINE)
    assert (user.is_active, user.has_usable_password(), user.is_staff) == (False, False, False)
