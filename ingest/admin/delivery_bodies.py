"""The base of admin pages that show the body of a delivery."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.admin import ReadOnlyAdmin
from ingest.admin import body_rendering
from ingest.models import (
    ConflictingDelivery,
    IgnoredDelivery,
    OperationVersion,
    RejectedDelivery,
    UnrecognizedDelivery,
    Webhook,
)
from ingest.versions import Decision

StoredBody = (
    Webhook
    | RejectedDelivery
    | IgnoredDelivery
    | UnrecognizedDelivery
    | ConflictingDelivery
    | OperationVersion
)


class DeliveryBodyAdmin(ReadOnlyAdmin):
    ordering = ["-id"]

    class Media:
        css = {"all": ["ingest/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("body")

    def matching(self, request: HttpRequest) -> QuerySet[Any]:
        """Return all rows of the changelist for this URL without its parameter `all`, unpaginated.

        Raise Http404 for a filter that is not understood: an action must never affect more than its filter.
        """
        original = request.GET
        query = original.copy()
        del query["all"]
        request.GET = query  # type: ignore[assignment]
        try:
            return self.get_changelist_instance(request).get_queryset(request)
        except (IncorrectLookupParameters, DisallowedModelAdminLookup) as exc:
            raise Http404 from exc
        finally:
            request.GET = original

    def get_urls(self) -> list[URLPattern]:
        download = self.admin_site.admin_view(self.body_view)
        return [path("<int:key>/body/", download, name=_body_url_name(self.model)), *super().get_urls()]

    def body_view(self, request: HttpRequest, key: int) -> HttpResponse:
        """Return the whole body as a file."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        row = get_object_or_404(self.model, pk=key)
        disposition = f'attachment; filename="{self.opts.model_name}-{key}"'
        return HttpResponse(
            row.body, "application/octet-stream", headers={"Content-Disposition": disposition}
        )

    @admin.display(description=gettext_lazy("body, indented"))
    def body_indented(self, row: StoredBody) -> str:
        if isinstance(row, OperationVersion) and row.decision in {Decision.FIRST, Decision.UNCLEAR}:
            return _("that of the webhook")
        if isinstance(row, Webhook | OperationVersion) and not row.body:
            return _("deleted after the retention period")
        return body_rendering.preformatted(body_rendering.indent_json(bytes(row.body)))

    @admin.display(description=gettext_lazy("body, exact bytes"))
    def body_bytes(self, row: StoredBody) -> str:
        download = reverse(f"admin:{_body_url_name(type(row))}", args=[row.pk])
        block = body_rendering.preformatted(body_rendering.escape_bytes(bytes(row.body)))
        return format_html('{}<a href="{}">{}</a>', block, download, _("download"))


def _body_url_name(model: type[Model]) -> str:
    return f"{model._meta.app_label}_{model._meta.model_name}_body"
