"""What the address of an admin list may ask of the database."""

from collections.abc import Iterator, Sequence
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin import FieldListFilter, SimpleListFilter
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import get_fields_from_path
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest

SEARCH_CHARS_MAX = 300  # a document number has 255


class SearchForm(forms.Form):
    """The search text; each of its words may become a condition for each searched field."""

    q = forms.CharField(required=False, max_length=SEARCH_CHARS_MAX)


class StrictChangeList(ChangeList):
    def get_results(self, request: HttpRequest) -> None:
        """Treat a value that only the database adapter refuses as the wrong parameter that it is.

        A moment in the year 1 with an offset has no UTC, for example.
        """
        try:
            super().get_results(request)
        except OverflowError as exc:
            raise IncorrectLookupParameters from exc


class StrictAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # Django's own class takes no argument
    """Execute no look-up from the query string but those of the list's filters and of our own links.

    Django allows each look-up of each local field, a regular expression on an unindexed column included:
    minutes of work for the database, and an oracle for columns that no page shows. Every other one is
    answered 400, as are a search text that is too long and selected rows whose keys are none.
    """

    show_facets = admin.ShowFacets.NEVER  # each facet is a count
    linked_lookups: Sequence[str] = ()  # of links on other pages

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup in self.linked_lookups or lookup in self._filter_parameters(request)

    def _filter_parameters(self, request: Any) -> Iterator[str]:
        for listed in self.get_list_filter(request):
            if isinstance(listed, type) and issubclass(listed, SimpleListFilter):
                yield str(listed.parameter_name)
                continue
            pair: Any = listed if isinstance(listed, list | tuple) else (listed, FieldListFilter.create)
            path, create = pair
            field: Any = get_fields_from_path(self.model, path)[-1]
            for parameter in create(
                field, request, {}, self.model, self, field_path=path
            ).expected_parameters():
                yield str(parameter)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return StrictChangeList

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """Raises DisallowedModelAdminLookup for a search text that Django would take for no search at all."""
        if not SearchForm({"q": request.GET.get(SEARCH_VAR, "")}).is_valid():
            raise DisallowedModelAdminLookup("The search text is too long, or holds a NUL character")
        return super().get_changelist_instance(request)

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any], *more: Any) -> Any:
        for key in request.POST.getlist(ACTION_CHECKBOX_NAME):
            try:
                self.opts.pk.clean(key, None)
            except ValidationError as exc:
                raise DisallowedModelAdminLookup("A selected row's primary key is none") from exc
        return super().response_action(request, queryset, *more)
