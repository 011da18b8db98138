"""The one button of each bucket: the operator action on everything in it, and what else may be done."""

from collections.abc import Collection, Iterator
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
_REOPEN = (Kind.REOPEN, gettext_lazy("Undo the decision"))
_UNMATCH = (Kind.UNMATCH, gettext_lazy("Undo the match"))
# Offered on the confirmation page of the button.
ALTERNATIVES: dict[Bucket, tuple[Kind, str | Promise]] = {
    Bucket.MISSING_WEBHOOK: _EXCLUDE,
    Bucket.UNIDENTIFIED: _EXCLUDE,
    **dict.fromkeys((Bucket.AMOUNT_MISMATCH, Bucket.PAYER_MISMATCH), _KEEP),
    **dict.fromkeys((Bucket.DUPLICATE, Bucket.NOT_ON_STATEMENT), _KEEP),
}
# What undoes an operator's decisions, or matches; offered for chosen rows.
UNDO: dict[Bucket, tuple[Kind, str | Promise]] = {
    **dict.fromkeys((Bucket.MATCHED, Bucket.UNPOSTED, Bucket.KEPT), _UNMATCH),
    **dict.fromkeys((Bucket.EXCLUDED, Bucket.KEPT_WEBHOOK), _REOPEN),
    **dict.fromkeys((Bucket.MISSING_WEBHOOK, Bucket.UNIDENTIFIED), _REOPEN),
}
OFFERED = frozenset(
    (kind, bucket) for each in (BUTTONS, ALTERNATIVES, UNDO) for bucket, (kind, _) in each.items()
)


@dataclass(frozen=True, slots=True)
class Button:
    """A link to the action's confirmation page, which shows what will happen and asks for the reason."""

    label: str | Promise
    url: str

    @property
    def path(self) -> str:
        """The URL without its query, for a form."""
        return self.url.partition("?")[0]


def may_settle(viewer: Viewer, kind: Kind) -> bool:
    """Return whether the viewer may carry out actions of this kind on lines and webhooks."""
    if kind == Kind.REPLAY:
        return has_action_permission(viewer, kind)
    return viewer.has_perms(["statements.settle_line", "ingest.view_webhook"])


def button_of(viewer: Viewer, bucket: Bucket, choice: Choice) -> Button | None:
    """Return the button of `bucket`, None if it has none or the viewer may not press it."""
    return next(_buttons(viewer, bucket, choice, (), BUTTONS), None)


def alternative_of(
    viewer: Viewer, bucket: Bucket, choice: Choice, keys: Collection[int] = ()
) -> Button | None:
    """Return what may be done instead, with the same rows."""
    return next(_buttons(viewer, bucket, choice, keys, ALTERNATIVES), None)


def row_buttons(viewer: Viewer, bucket: Bucket, choice: Choice, keys: Collection[int] = ()) -> list[Button]:
    """Return all that may be done with the rows `keys` of `bucket`, or without keys with chosen ones."""
    return list(_buttons(viewer, bucket, choice, keys, BUTTONS, ALTERNATIVES, UNDO))


def _buttons(
    viewer: Viewer,
    bucket: Bucket,
    choice: Choice,
    keys: Collection[int],
    *offers: dict[Bucket, tuple[Kind, str | Promise]],
) -> Iterator[Button]:
    for kind, label in (offer[bucket] for offer in offers if bucket in offer):
        if may_settle(viewer, kind):
            url = reverse("admin:statements_settle", args=[kind.value])
            yield Button(label, f"{url}?{choice.query(bucket=bucket.value, row=list(keys))}")
