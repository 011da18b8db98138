"""The one button of each bucket: the operator action on everything in it, and what else may be done."""

from dataclasses import dataclass

from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from core.admin import Viewer
from ingest.admin.action_views import has_action_permission
from ingest.models import OperatorAction
from statements.admin.period_form import Choice
from statements.models import Bucket

Kind = OperatorAction.Kind
_REVERSE = gettext_lazy("Reverse")
_REPLACE = gettext_lazy("Replace by the statement")
BUTTONS: dict[Bucket, tuple[Kind, str | Promise]] = {
    Bucket.MISSING_WEBHOOK: (Kind.POST, gettext_lazy("Post from the statement")),
    Bucket.UNIDENTIFIED: (Kind.POST, gettext_lazy("Post to suspense")),
    Bucket.UNPOSTED: (Kind.REPLAY, gettext_lazy("Replay")),
    Bucket.AMOUNT_MISMATCH: (Kind.BY_LINE, _REPLACE),
    Bucket.PAYER_MISMATCH: (Kind.BY_LINE, _REPLACE),
    Bucket.SUGGESTED: (Kind.MATCH, gettext_lazy("Confirm the match")),
    Bucket.DUPLICATE: (Kind.TAKE_BACK, _REVERSE),
    Bucket.NOT_ON_STATEMENT: (Kind.TAKE_BACK, _REVERSE),
    Bucket.REVERSED_BY_BANK: (Kind.TAKE_BACK, _REVERSE),
}
_KEEP = (Kind.KEEP, gettext_lazy("Keep as it is"))
_EXCLUDE = (Kind.EXCLUDE, gettext_lazy("Exclude"))
# Offered on the confirmation page of the button.
ALTERNATIVES: dict[Bucket, tuple[Kind, str | Promise]] = {
    Bucket.MISSING_WEBHOOK: _EXCLUDE,
    Bucket.UNIDENTIFIED: _EXCLUDE,
    **dict.fromkeys((Bucket.AMOUNT_MISMATCH, Bucket.PAYER_MISMATCH), _KEEP),
    **dict.fromkeys((Bucket.DUPLICATE, Bucket.NOT_ON_STATEMENT), _KEEP),
}


@dataclass(frozen=True, slots=True)
class Button:
    """A link to the action's confirmation page, which shows what will happen and asks for the reason."""

    label: str | Promise
    url: str


def may_settle(viewer: Viewer, kind: Kind) -> bool:
    """Return whether the viewer may carry out actions of this kind on lines and webhooks."""
    if kind == Kind.REPLAY:
        return has_action_permission(viewer, kind)
    return viewer.has_perms(["statements.settle_line", "ingest.view_webhook"])


def button_of(viewer: Viewer, bucket: Bucket, choice: Choice) -> Button | None:
    """Return the button of `bucket`, None if it has none or the viewer may not press it."""
    return _button(viewer, bucket, choice, BUTTONS)


def alternative_of(viewer: Viewer, bucket: Bucket, choice: Choice) -> Button | None:
    """Return what may be done instead."""
    return _button(viewer, bucket, choice, ALTERNATIVES)


def _button(
    viewer: Viewer, bucket: Bucket, choice: Choice, buttons: dict[Bucket, tuple[Kind, str | Promise]]
) -> Button | None:
    if bucket not in buttons:
        return None
    kind, label = buttons[bucket]
    if not may_settle(viewer, kind):
        return None
    url = reverse("admin:statements_settle", args=[kind.value])
    return Button(label, f"{url}?{choice.query(bucket=bucket.value)}")
