"""Admin pages that show the bytes of a delivery."""

from typing import Any

import msgspec
from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet
from django.http import Http404, HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ingest.models import (
    ConflictingDelivery,
    IgnoredDelivery,
    RejectedDelivery,
    UnrecognizedDelivery,
    Webhook,
)
from ingest.signing import claimed_payload
from ledger.browsing import ReadOnlyAdmin

Delivered = Webhook | RejectedDelivery | IgnoredDelivery | UnrecognizedDelivery | ConflictingDelivery


def _block(text: str) -> str:
    return format_html('<pre class="delivered">{}</pre>', text)


class DeliveredAdmin(ReadOnlyAdmin):
    """Rows with the bytes that came in."""

    ordering = ["-id"]

    class Media:
        css = {"all": ["ingest/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("body")

    def matching(self, request: HttpRequest) -> QuerySet[Any]:
        """What the list would show for this address without its `all`, the whole of it."""
        whole = request.GET
        query = whole.copy()
        del query["all"]
        request.GET = query  # type: ignore[assignment]
        try:
            return self.get_changelist_instance(request).get_queryset(request)
        except IncorrectLookupParameters as wrong:
            raise Http404 from wrong
        finally:
            request.GET = whole

    @admin.display(description=gettext_lazy("body, indented"))
    def body_indented(self, row: Delivered) -> str:
        if isinstance(row, Webhook) and not row.body:
            return _("let go of with time")
        payload = claimed_payload(bytes(row.body))
        try:
            # Indents without reading the numbers, which stay as the bank wrote them.
            text = msgspec.json.format(payload.decode(), indent=2)
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
            text = _("not JSON")
        return _block(text)

    @admin.display(description=gettext_lazy("body, the exact bytes"))
    def body_bytes(self, row: Delivered) -> str:
        return _block(repr(bytes(row.body))[2:-1])
