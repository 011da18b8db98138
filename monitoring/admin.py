from django.contrib import admin

from core.admin import ReadOnlyAdmin
from monitoring.models import Alert


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    list_display = ["cause", "text", "started_at", "notified_at", "cleared_at"]
    fields = ["cause", "text", "remedy", "magnitude", "started_at", "notified_at", "cleared_at"]
    ordering = ["cause"]
