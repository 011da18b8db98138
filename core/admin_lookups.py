"""Restriction of the lookups that a URL of an admin list can execute."""

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

SEARCH_CHARS_MAX = 300  # a document number has up to 255


class SearchForm(forms.Form):
    """Bounds the search text, each word of which can become a condition on each searched field."""

    q = forms.CharField(required=False, max_length=SEARCH_CHARS_MAX)


class StrictChangeList(ChangeList):
    def get_results(self, request: HttpRequest) -> None:
        """Treat a value that only the database adapter rejects as an incorrect parameter.

        An example is a time in the year 1 whose offset puts it before the first UTC time.
        """
        try:
            super().get_results(request)
        except OverflowError as exc:
            raise IncorrectLookupParameters from exc


class StrictAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # Django's own class takes no argument
    """Execute only lookups of the list's own filters and `linked_lookups`; answer 400 to all others.

    Django allows every lookup of every local field, a regular expression on an unindexed column included:
    minutes of work for the database, and an oracle for columns that no page shows. Search texts over
    SEARCH_CHARS_MAX and malformed keys of selected rows are answered 400 as well.
    """

    show_facets = admin.ShowFacets.NEVER  # each facet costs a COUNT
    linked_lookups: Sequence[str] = ()  # lookups in links from other pages

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup in self.linked_lookups or lookup in self._filter_parameters(request)

    def _filter_parameters(self, request: Any) -> Iterator[str]:
        for item in self.get_list_filter(request):
            if isinstance(item, type) and issubclass(item, SimpleListFilter):
                yield str(item.parameter_name)
                continue
            pair: Any = item if isinstance(item, list | tuple) else (item, FieldListFilter.create)
            path, create = pair
            field: Any = get_fields_from_path(self.model, path)[-1]
            for parameter in create(
                field, request, {}, self.model, self, field_path=path
            ).expected_parameters():
                yield str(parameter)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return StrictChangeList

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """Raise DisallowedModelAdminLookup for an invalid search text, which Django would ignore."""
        if not SearchForm({"q": request.GET.get(SEARCH_VAR, "")}).is_valid():
            raise DisallowedModelAdminLookup("The search text is too long or contains a NUL character")
        return super().get_changelist_instance(request)

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any], *more: Any) -> Any:
        for key in request.POST.getlist(ACTION_CHECKBOX_NAME):
            try:
                self.opts.pk.clean(key, None)
            except ValidationError as exc:
                raise DisallowedModelAdminLookup("A selected row's primary key is malformed") from exc
        return super().response_action(request, queryset, *more)
