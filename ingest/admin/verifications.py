from django.contrib import admin
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.admin import ReadOnlyAdmin
from ingest.admin.body_rendering import BLOCK_CHARS_MAX
from ingest.models import LedgerVerification

DRIFT_CHARS_SHOWN = 1000  # in the list


@admin.register(LedgerVerification)
class LedgerVerificationAdmin(ReadOnlyAdmin):
    list_display = ["ended_at", "is_full", "short_result", "rows_scanned", "duration"]
    fields = ["ended_at", "is_full", "result", "drifts_found", "rows_scanned", "duration"]
    ordering = ["-id"]

    @admin.display(description=gettext_lazy("result"))
    def result(self, verification: LedgerVerification) -> str:
        return verification.drift[:BLOCK_CHARS_MAX] or _("no drift")

    @admin.display(description=gettext_lazy("result"))
    def short_result(self, verification: LedgerVerification) -> str:
        return Truncator(self.result(verification)).chars(DRIFT_CHARS_SHOWN)
