"""The one button of each bucket: the operator action on everything in it."""

from dataclasses import dataclass

from django.utils.functional import Promise

from core.admin import Viewer
from statements.admin.period_form import Choice
from statements.models import Bucket


@dataclass(frozen=True, slots=True)
class Button:
    """A link to the action's confirmation page, which shows what will happen and asks for the reason."""

    label: str | Promise
    url: str


def button_of(viewer: Viewer, bucket: Bucket, choice: Choice) -> Button | None:
    """Return the button of `bucket`, None if it has none or the viewer may not press it."""
    return None
