"""A form for a period in days."""

from typing import Any

from django import forms
from django.core.validators import MaxValueValidator, MinValueValidator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.days import DAY_MAX, DAY_MIN


class PeriodForm(forms.Form):
    """The first and the last day of a period. Either may be left open."""

    first = forms.DateField(label=gettext_lazy("from"), required=False)
    last = forms.DateField(label=gettext_lazy("to"), required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("first", "last"):
            field = self.fields[name]
            field.widget = forms.DateInput(format="%Y-%m-%d", attrs={"type": "date"})
            field.validators += [MinValueValidator(DAY_MIN), MaxValueValidator(DAY_MAX)]

    def clean(self) -> dict[str, Any]:
        fields = super().clean() or {}
        first, last = fields.get("first"), fields.get("last")
        if first and last and last < first:
            raise forms.ValidationError(_("This period ends before it begins."))
        return fields
