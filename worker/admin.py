"""Admin of heartbeats and of task results: every single attempt of a webhook has one, with its traceback."""

from celery.states import SUCCESS
from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, gettext_noop
from django_celery_results.models import GroupResult, TaskResult

from core.admin import ReadOnlyAdmin, Viewer, admin_link, may_view
from ingest.admin import action_views, timeline
from ingest.admin.webhooks import ERROR_CHARS_SHOWN
from ingest.models import OperatorAction, Webhook
from ledger.operation_id import parse_operation_id
from worker.applying import BatchFailed
from worker.models import Heartbeat
from worker.retries import webhook_id_from_task_id

RESULTS_SHOWN_MAX = 20  # results on a webhook's page
TIMELINE_TRACE_CHARS_MAX = 4_000  # of each
TRACE_CHARS_MAX = 50_000  # on a result's own page
# Python's, between the tracebacks of chained exceptions.
CAUSE_SEPARATOR = "\nThe above exception was the direct cause of the following exception:\n"
LISTED_MAX = 5  # results without a webhook, in the message

admin.site.unregister([GroupResult, TaskResult])  # of groups there are none
# Texts that django_celery_results marks for translation and shows here; its Russian is not compiled.
CELERY_MSGIDS = (
    gettext_noop("Celery Results"),
    gettext_noop("task result"),
    gettext_noop("task results"),
    gettext_noop("Task ID"),
    gettext_noop("Celery ID for the Task that was run"),
    gettext_noop("Task Name"),
    gettext_noop("Name of the Task which was run"),
    gettext_noop("Task State"),
    gettext_noop("Current state of the task being run"),
    gettext_noop("Created DateTime"),
    gettext_noop("Datetime field when the task result was created in UTC"),
    gettext_noop("Completed DateTime"),
    gettext_noop("Datetime field when the task was completed in UTC"),
    gettext_noop("Worker"),
    gettext_noop("Worker that executes the task"),
    gettext_noop("Result Data"),
    gettext_noop("The data returned by the task.  Use content_encoding and content_type fields to read."),
)


def attempts_filter(webhook_id: int) -> Q:
    """Return the filter for the results of this webhook's attempts."""
    # A range, because LIKE does not use the index on every database; "." follows "-".
    return Q(task_id__gte=f"webhook-{webhook_id}-", task_id__lt=f"webhook-{webhook_id}.")


def attempt_events(webhook: Webhook, viewer: Viewer) -> list[timeline.TimelineEvent]:
    """Return the webhook's attempts for its timeline, as far as Celery kept their results."""
    if not may_view(viewer, TaskResult):
        return []
    newest = TaskResult.objects.filter(attempts_filter(webhook.pk)).order_by("-id")[:RESULTS_SHOWN_MAX]
    return list(map(_attempt, newest))


timeline.add_provider(attempt_events)


def _attempt(result: TaskResult) -> timeline.TimelineEvent:
    succeeded = result.status == SUCCESS
    return timeline.TimelineEvent(
        result.date_done,
        "applied" if succeeded else "attempt",
        _("Single attempt succeeded") if succeeded else _("Single attempt failed"),
        format_html(
            "{} {}", tail(last_line(result), TIMELINE_TRACE_CHARS_MAX), admin_link(result, _("the result"))
        ),
        traceback=tail(result.traceback, TIMELINE_TRACE_CHARS_MAX),
    )


def tail(text: str | None, chars_max: int) -> str:
    """Return the last characters: the end of a traceback names the error."""
    return (text or "")[-chars_max:]


def last_line(result: TaskResult) -> str:
    """Return the last line of the traceback, which names the error; for BatchFailed, that of its cause."""
    traceback = result.traceback or ""
    cause, separator, wrapper = traceback.rpartition(CAUSE_SEPARATOR)
    text = cause if separator and BatchFailed.__name__ in wrapper else traceback
    return text.rstrip().rpartition("\n")[2]


@admin.register(TaskResult)
class TaskResultAdmin(ReadOnlyAdmin):
    list_display = ["task_id", "webhook", "status", "failure", "date_done"]
    fields = [
        "task_id",
        "task_name",
        "webhook",
        "status",
        "date_created",
        "date_done",
        "worker",
        "data",
        "trace",
    ]
    list_filter = ["status"]
    ordering = ["-id"]
    search_fields = ["task_id"]
    search_help_text = gettext_lazy("a task id, or a webhook's operation id")
    actions = ["replay_selected"]

    def search(self, rows: QuerySet[TaskResult], text: str) -> QuerySet[TaskResult]:
        operation_id = parse_operation_id(text)
        webhook = operation_id and Webhook.objects.filter(operation_id=operation_id).first()
        return rows.filter(attempts_filter(webhook.pk) if webhook else Q(task_id=text))

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return action_views.has_action_permission(request.user, OperatorAction.Kind.REPLAY)

    @admin.action(permissions=["replay"], description=gettext_lazy("Replay"))
    def replay_selected(self, request: HttpRequest, selected: QuerySet[TaskResult]) -> HttpResponse | None:
        """Confirm the replay of the results' webhooks; warn about results without a webhook."""
        task_ids = selected.values_list("task_id", flat=True)[: action_views.SELECTED_MAX + 1]
        webhook_ids = {task_id: webhook_id_from_task_id(task_id) for task_id in task_ids}
        if without := [task_id for task_id, webhook_id in webhook_ids.items() if webhook_id is None]:
            listed = ", ".join(without[:LISTED_MAX]) + (", …" if len(without) > LISTED_MAX else "")
            text = _("{count} without a webhook to replay: {ids}")
            messages.warning(request, text.format(count=len(without), ids=listed))
        found = {webhook_id for webhook_id in webhook_ids.values() if webhook_id is not None}
        return (
            action_views.confirm(request, self.admin_site, OperatorAction.Kind.REPLAY, found)
            if found
            else None
        )

    @admin.display(description=gettext_lazy("webhook"))
    def webhook(self, result: TaskResult) -> str:
        webhook_id = webhook_id_from_task_id(result.task_id)
        text = _("webhook {id}").format(id=webhook_id)
        return admin_link(Webhook(pk=webhook_id), text) if webhook_id else _("none")

    @admin.display(description=gettext_lazy("failure"))
    def failure(self, result: TaskResult) -> str:
        return Truncator(last_line(result)).chars(ERROR_CHARS_SHOWN)

    @admin.display(description=gettext_lazy("traceback"))
    def trace(self, result: TaskResult) -> str:
        return format_html("<pre>{}</pre>", tail(result.traceback, TRACE_CHARS_MAX) or _("none"))

    @admin.display(description=gettext_lazy("Result Data"))
    def data(self, result: TaskResult) -> str:
        return tail(result.result, TRACE_CHARS_MAX)


@admin.register(Heartbeat)
class HeartbeatAdmin(ReadOnlyAdmin):
    list_display = ["name", "kind", "processes", "seen_at"]
    fields = ["name", "kind", "processes", "seen_at"]
    ordering = ["name"]
