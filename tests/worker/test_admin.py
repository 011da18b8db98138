import re
import traceback
from uuid import uuid4

import pytest
from django.db import DataError, connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django_celery_results.models import TaskResult

from ingest.models import Webhook
from tests.admin_client import admin_url, changelist_rows, hidden_fields, staff_client, superuser_client
from tests.factories import make_webhook
from worker.admin import LISTED_MAX
from worker.applying import BatchFailed

pytestmark = pytest.mark.django_db
FAILED, RECEIVED, APPLIED = Webhook.Status.FAILED, Webhook.Status.RECEIVED, Webhook.Status.APPLIED


@pytest.fixture
def admin_client() -> Client:
    return superuser_client()


def failed() -> Webhook:
    return make_webhook(status=FAILED, attempts=5, last_error="it broke")


def result_of(webhook: Webhook | None, **fields: object) -> TaskResult:
    """Create the result of a failed attempt at `webhook`, or of another task."""
    prefix = f"webhook-{webhook.pk}-" if webhook else ""
    defaults = {"status": "FAILURE", "traceback": "Traceback:\n  File …\nValueError: <b>it broke</b>\n"}
    return TaskResult.objects.create(task_id=f"{prefix}{uuid4()}", **defaults | fields)


def select(browser: Client, *results: TaskResult) -> HttpResponse:
    """Submit the action Replay for these results."""
    ticked = {"action": "replay_selected", "_selected_action": [result.pk for result in results]}
    return browser.post(admin_url(TaskResult, "changelist"), {**ticked, "index": "0"}, follow=True)


def messages_of(response: HttpResponse) -> str:
    return " ".join(map(str, response.context["messages"]))


def statuses() -> list[str]:
    return list(Webhook.objects.order_by("id").values_list("status", flat=True))


def test_replay_of_results_confirms_then_replays_their_webhooks(admin_client: Client) -> None:
    one, other, applied = failed(), failed(), make_webhook(status=APPLIED)
    results = [result_of(webhook) for webhook in (one, one, other, applied)]

    asked = select(admin_client, *results)

    assert statuses() == [FAILED, FAILED, APPLIED]
    content = asked.content.decode()
    assert "<strong>2 failed webhooks</strong>" in content
    assert "1 already applied" in content
    button = re.search(r'action="([^"]*)" class="confirmation"', content)
    assert button
    response = admin_client.post(button[1], {**hidden_fields(asked), "reason": "it is repaired"}, follow=True)
    assert response.context["outcomes"] == [(2, "done"), (1, "already applied")]
    assert statuses() == [RECEIVED, RECEIVED, APPLIED]


def test_webhook_is_read_from_task_id_not_from_truncated_arguments(admin_client: Client) -> None:
    webhook, mistaken = failed(), failed()
    result = result_of(
        webhook, task_args=f"({mistaken.pk}, 1)", task_kwargs=f"{{'webhook_id': {mistaken.pk}}}"
    )

    content = select(admin_client, result).content.decode()

    assert str(webhook) in content
    assert str(mistaken) not in content


def test_results_without_webhook_are_listed_in_message(admin_client: Client) -> None:
    sweeps = [result_of(None) for _ in range(LISTED_MAX + 1)]

    response = select(admin_client, *sweeps)

    assert messages_of(response).startswith(f"{LISTED_MAX + 1} without a webhook to replay: ")
    assert sum(sweep.task_id in messages_of(response) for sweep in sweeps) == LISTED_MAX
    assert messages_of(response).endswith(", …")


def test_results_without_webhook_are_listed_while_others_are_replayed(admin_client: Client) -> None:
    webhook, sweep = failed(), result_of(None)

    response = select(admin_client, sweep, result_of(webhook))

    assert messages_of(response) == f"1 without a webhook to replay: {sweep.task_id}"
    assert str(webhook) in response.content.decode()


def test_result_of_nonexistent_webhook_replays_nothing(admin_client: Client) -> None:
    response = select(admin_client, result_of(Webhook(pk=10**9)))

    assert "1 unknown" in response.content.decode()


def test_auditor_cannot_replay() -> None:
    auditor = staff_client("view_taskresult", "view_webhook")
    result = result_of(failed())

    assert "replay_selected" not in auditor.get(admin_url(TaskResult, "changelist")).content.decode()
    select(auditor, result)

    assert statuses() == [FAILED]


def test_result_and_webhook_link_to_each_other(admin_client: Client) -> None:
    webhook = failed()
    result = result_of(webhook)
    foreign = [result_of(Webhook(pk=int(f"{webhook.pk}{digit}"))) for digit in range(10)]

    assert (
        admin_url(Webhook, "change", webhook.pk)
        in admin_client.get(admin_url(TaskResult, "change", result.pk)).content.decode()
    )
    content = admin_client.get(admin_url(Webhook, "change", webhook.pk)).content.decode()
    assert admin_url(TaskResult, "change", result.pk) in content
    for other in foreign:
        assert admin_url(TaskResult, "change", other.pk) not in content


def test_traceback_is_escaped(admin_client: Client) -> None:
    result = result_of(failed())

    for url in [admin_url(TaskResult, "changelist"), admin_url(TaskResult, "change", result.pk)]:
        content = admin_client.get(url).content.decode()
        assert "ValueError: &lt;b&gt;it broke&lt;/b&gt;" in content
        assert "<b>it broke" not in content


def test_search_finds_results_by_task_id_and_operation_id(admin_client: Client) -> None:
    webhook = failed()
    attempt, sweep = result_of(webhook), result_of(None)

    assert changelist_rows(admin_client, TaskResult, q=webhook.operation_id.hex) == [str(attempt)]
    assert changelist_rows(admin_client, TaskResult, q=attempt.task_id) == [str(attempt)]
    assert changelist_rows(admin_client, TaskResult, q=sweep.task_id) == [str(sweep)]


def test_results_are_read_only(admin_client: Client) -> None:
    result = result_of(failed())

    for name, arguments in [("add", []), ("change", [result.pk]), ("delete", [result.pk])]:
        assert admin_client.post(admin_url(TaskResult, name, *arguments), {"post": "yes"}).status_code == 403

    assert TaskResult.objects.get() == result


def test_list_query_count_is_independent_of_length(admin_client: Client) -> None:
    result_of(failed())
    with CaptureQueriesContext(connection) as short:
        changelist_rows(admin_client, TaskResult)
    for _ in range(30):
        result_of(failed())
    with CaptureQueriesContext(connection) as long:
        changelist_rows(admin_client, TaskResult)

    assert len(long) == len(short) <= 8


def test_failed_attempt_shows_cause_without_wrapper(admin_client: Client) -> None:
    webhook = failed()
    wrapper = BatchFailed([webhook.pk])
    wrapper.__cause__ = DataError("out of range")
    result_of(webhook, traceback="".join(traceback.format_exception(wrapper)))

    shown = admin_client.get(admin_url(Webhook, "change", webhook.pk)).content.decode()
    assert '<div class="text">django.db.utils.DataError: out of range' in shown
