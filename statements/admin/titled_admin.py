"""Read-only admin pages whose titles are the model's name: Django's sentences decline no noun."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.text import capfirst

from core.admin import ReadOnlyAdmin


class TitledAdmin(ReadOnlyAdmin):
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        title = capfirst(self.opts.verbose_name_plural)
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        context = {"title": capfirst(self.opts.verbose_name), **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)
