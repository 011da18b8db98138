"""The progress of an operator action."""

from collections import Counter
from dataclasses import dataclass, field

from django.db.models import Count

from ingest import action_handlers
from ingest.models import OperatorAction, OperatorActionItem, Webhook

Outcome = OperatorActionItem.Outcome


@dataclass
class Progress:
    """The progress of an action, counted in items."""

    outcomes: Counter[str] = field(default_factory=Counter)  # items by outcome
    current_statuses: Counter[str] = field(default_factory=Counter)  # replayed webhooks by status

    @property
    def total(self) -> int:
        return self.outcomes.total()

    @property
    def processed(self) -> int:
        return self.total - self.outcomes[Outcome.PENDING]

    @property
    def is_finished(self) -> bool:
        """Whether no item is pending, and no replayed webhook is still to be applied."""
        return not self.outcomes[Outcome.PENDING] and not self.current_statuses[Webhook.Status.RECEIVED]


def progress(action: OperatorAction) -> Progress:
    """Count the action's rows now. Later actions may have moved its webhooks since."""
    if handler := action_handlers.handler_of(action):
        return Progress(handler.outcomes(action))
    # With every outcome named, the index on (outcome, action) covers the query.
    items = OperatorActionItem.objects.filter(action=action, outcome__in=Outcome.values)
    outcomes = Counter(dict(items.values_list("outcome").annotate(Count("id")).order_by()))
    current_statuses: Counter[str] = Counter()
    if action.kind == OperatorAction.Kind.REPLAY:
        done = items.filter(outcome=Outcome.DONE)
        current_statuses.update(dict(done.values_list("webhook__status").annotate(Count("id")).order_by()))
    return Progress(outcomes, current_statuses)
