"""Read-only admin pages over tables of millions of rows."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, cast

from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.models import AnonymousUser, User
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import conditional_escape, format_html

from core.admin_lookups import StrictAdmin, StrictChangeList

Viewer = User | AnonymousUser


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # Django's own class takes no argument
    """Count at most `rows_max` rows: an exact count would read the whole index for each page."""

    rows_max = 1000

    @cached_property
    def count(self) -> int:
        rows = cast(QuerySet[Any], self.object_list)
        return rows.order_by()[: self.rows_max].count()


class IndexedChangeList(StrictChangeList):
    """A list in the order of its index; columns are not sortable."""

    def get_ordering_field(self, field_name: Any) -> None:
        return None


class ReadOnlyAdmin(StrictAdmin):
    """Show rows to users with the view permission; no user can change them, not even a superuser.

    The cost of a list is bounded, however long the table is: it shows the first thousand rows, and `search`
    finds the others. The lookups of `search`, like `ordering`, need an index.
    """

    change_list_template = "admin/bounded_change_list.html"
    paginator = BoundedPaginator
    show_full_result_count = False
    sortable_by = ()
    # No join: starting from a few organizations the server would read and sort all their payments.
    list_select_related = ()
    prefetched: Sequence[str] = ()
    related_models: Mapping[Any, type[Model]] = {}  # the model whose rows a field shows, by field

    class Media:
        css = {"all": ["core/admin.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        """Omit fields that show rows of models which the viewer may not see."""
        fieldsets = []
        for title, options in super().get_fieldsets(request, obj):
            visible = [
                name
                for name in options["fields"]
                if name not in self.related_models or may_view(request.user, self.related_models[name])
            ]
            if visible:
                fieldsets.append((title, {**options, "fields": visible}))
        return fieldsets

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).prefetch_related(*self.prefetched)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return IndexedChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        text = search_term.strip()
        return (self.search(queryset, text) if text and self.search_fields else queryset), False

    def search(self, rows: QuerySet[Any], text: str) -> QuerySet[Any]:
        """Return those of `rows` that match the search text, which is not empty."""
        raise NotImplementedError


def format_datetime(at: datetime) -> str:
    """Format a time in the viewer's zone and language."""
    return date_format(timezone.localtime(at), "DATETIME_FORMAT")


def admin_link(row: Model, text: object) -> str:
    """Return a link to the row's admin page; `text` is escaped."""
    page = f"admin:{row._meta.app_label}_{row._meta.model_name}_change"
    return format_html('<a href="{}">{}</a>', reverse(page, args=[row.pk]), text)


def may_view(viewer: Viewer, model: type[Model]) -> bool:
    return viewer.has_perm(f"{model._meta.app_label}.view_{model._meta.model_name}")


def link_if_visible(viewer: Viewer, row: Model, text: object) -> str:
    """Return a link for viewers who may see the row, else only `text`, escaped."""
    return admin_link(row, text) if may_view(viewer, type(row)) else conditional_escape(str(text))


def list_link(model: type[Model], text: object, **query: str) -> str:
    """Return a link to the model's list, for example with q=… as its search; `text` is escaped."""
    return format_html('<a href="{}">{}</a>', list_url(model, **query), text)


def list_url(model: type[Model], **query: str) -> str:
    page = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
    return reverse(page, query=query or None)
