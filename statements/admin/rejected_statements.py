"""The refused statement files in the admin."""

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from statements.admin import finding_texts
from statements.admin.titled_admin import TitledAdmin
from statements.decoding import decode
from statements.models import RejectedStatement


@admin.register(RejectedStatement)
class RejectedStatementAdmin(TitledAdmin):
    list_display = ["at", "name", "why", "line"]
    fields = ["at", "name", "why", "line", "beginning"]
    ordering = ["-id"]

    class Media:
        css = {"all": ["core/admin.css", "ingest/admin.css"]}

    def has_module_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("statements.view_rejectedstatement")

    @admin.display(description=gettext_lazy("refused because"))
    def why(self, rejected: RejectedStatement) -> str:
        return finding_texts.sentence(rejected.code, rejected.reason)

    @admin.display(description=gettext_lazy("the beginning of the file"))
    def beginning(self, rejected: RejectedStatement) -> SafeString:
        return format_html('<pre class="body">{}</pre>', decode(bytes(rejected.body)).text)
