"""Open alerts, to be read."""

from django.contrib import admin

from ledger.browsing import ReadOnlyAdmin
from monitoring.models import Alert


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    list_display = ["cause", "text", "began_at", "told_at", "gone_at"]
    fields = ["cause", "text", "to_do", "size", "began_at", "told_at", "gone_at"]
    ordering = ["cause"]
