"""Where webhooks and Celery's results meet: each attempt of a webhook has a result with its traceback."""

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from django.utils.text import Truncator
from django_celery_results.models import TaskResult

from ingest.admin import ERROR_CHARS_SHOWN, REPLAYED_AT_ONCE_MAX, WebhookAdmin, ask_to_replay, may_replay
from ingest.models import Webhook
from ledger.browsing import ReadOnlyAdmin, link
from ledger.operation_id import as_operation_id
from worker.attempts import webhook_id_of
from worker.models import Beat

SHOWN_MAX = 20  # results on a webhook's page
NAMED_MAX = 5  # of the results that have no webhook behind them

admin.site.unregister([TaskResult, Webhook])


def attempts_of(webhook_id: int) -> Q:
    """Picks the results of this webhook's attempts."""
    # A range, because LIKE would not use the index on every database; "." follows "-".
    return Q(task_id__gte=f"webhook-{webhook_id}-", task_id__lt=f"webhook-{webhook_id}.")


@admin.register(Webhook)
class AttemptedWebhookAdmin(WebhookAdmin):
    """The inbox's page, and with it what Celery kept of the webhook's attempts."""

    fieldsets = [*WebhookAdmin.fieldsets, ("Attempts", {"fields": ["results"]})]

    @admin.display
    def results(self, webhook: Webhook) -> str:
        newest = TaskResult.objects.filter(attempts_of(webhook.pk)).order_by("-id")[:SHOWN_MAX]
        lines = [(link(result, f"{result.date_done:%Y-%m-%d %H:%M:%S}"), result.status) for result in newest]
        return format_html_join("", "{} {}<br>", lines) or "none"


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
        "result",
        "trace",
    ]
    list_filter = ["status"]
    ordering = ["-id"]
    search_fields = ["task_id"]
    search_help_text = "a task id, or a webhook's operation id"
    actions = ["replay_selected"]

    def find(self, rows: QuerySet[TaskResult], text: str) -> QuerySet[TaskResult]:
        operation_id = as_operation_id(text)
        webhook = operation_id and Webhook.objects.filter(operation_id=operation_id).first()
        return rows.filter(attempts_of(webhook.pk) if webhook else Q(task_id=text))

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return may_replay(request.user)

    @admin.action(permissions=["replay"], description="Replay")
    def replay_selected(self, request: HttpRequest, selected: QuerySet[TaskResult]) -> HttpResponse | None:
        """Ask about the webhooks behind the results, and name the results that have none."""
        task_ids = selected.values_list("task_id", flat=True)[: REPLAYED_AT_ONCE_MAX + 1]
        webhook_ids = {task_id: webhook_id_of(task_id) for task_id in task_ids}
        if without := [task_id for task_id, webhook_id in webhook_ids.items() if webhook_id is None]:
            named = ", ".join(without[:NAMED_MAX]) + (", …" if len(without) > NAMED_MAX else "")
            messages.warning(request, f"{len(without)} without a webhook to replay: {named}")
        found = {webhook_id for webhook_id in webhook_ids.values() if webhook_id is not None}
        return ask_to_replay(request, self.admin_site, found) if found else None

    @admin.display
    def webhook(self, result: TaskResult) -> str:
        webhook_id = webhook_id_of(result.task_id)
        return link(Webhook(pk=webhook_id), f"webhook {webhook_id}") if webhook_id else "none"

    @admin.display
    def failure(self, result: TaskResult) -> str:
        """The last line of the traceback, which names the error."""
        last_line = (result.traceback or "").rstrip().rpartition("\n")[2]
        return Truncator(last_line).chars(ERROR_CHARS_SHOWN)

    @admin.display(description="traceback")
    def trace(self, result: TaskResult) -> str:
        return format_html("<pre>{}</pre>", result.traceback or "none")


@admin.register(Beat)
class BeatAdmin(ReadOnlyAdmin):
    list_display = ["name", "kind", "processes", "seen_at"]
    fields = ["name", "kind", "processes", "seen_at"]
    ordering = ["name"]
