"""Admin pages that show the bytes of a delivery."""

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
    RejectedDelivery,
    UnrecognizedDelivery,
    Webhook,
)

StoredBody = Webhook | RejectedDelivery | IgnoredDelivery | UnrecognizedDelivery | ConflictingDelivery


class DeliveryBodyAdmin(ReadOnlyAdmin):
    """Rows with the bytes that came in."""

    ordering = ["-id"]

    class Media:
        css = {"all": ["ingest/admin/pages.css"]}

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
        except (IncorrectLookupParameters, DisallowedModelAdminLookup) as exc:
            raise Http404 from exc
        finally:
            request.GET = whole

    def get_urls(self) -> list[URLPattern]:
        download = self.admin_site.admin_view(self.body_view)
        return [path("<int:key>/body/", download, name=_body_page(self.model)), *super().get_urls()]

    def body_view(self, request: HttpRequest, key: int) -> HttpResponse:
        """The bytes as a file, whatever their length."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        row = get_object_or_404(self.model, pk=key)
        name = f'attachment; filename="{self.opts.model_name}-{key}"'
        return HttpResponse(row.body, "application/octet-stream", headers={"Content-Disposition": name})

    @admin.display(description=gettext_lazy("body, indented"))
    def body_indented(self, row: StoredBody) -> str:
        if isinstance(row, Webhook) and not row.body:
            return _("let go of with time")
        return body_rendering.preformatted(body_rendering.indent_json(bytes(row.body)))

    @admin.display(description=gettext_lazy("body, the exact bytes"))
    def body_bytes(self, row: StoredBody) -> str:
        download = reverse(f"admin:{_body_page(type(row))}", args=[row.pk])
        shown = body_rendering.preformatted(body_rendering.escape_bytes(bytes(row.body)))
        return format_html('{}<a href="{}">{}</a>', shown, download, _("download"))


def _body_page(model: type[Model]) -> str:
    return f"{model._meta.app_label}_{model._meta.model_name}_body"
