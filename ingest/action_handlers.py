"""Operator actions on rows of packages above: each package registers how its kinds are carried out."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ingest.models import OperatorAction

Kind = OperatorAction.Kind


@dataclass(frozen=True, slots=True)
class ActionHandler:
    """How actions of some kinds are carried out.

    `run_chunk` processes the next chunk of items in the caller's transaction, which has the action locked,
    and returns their number. `pending_ids` returns the keys of actions with pending items, `outcomes` the
    number of an action's items by outcome.
    """

    run_chunk: Callable[[OperatorAction], int]
    pending_ids: Callable[[], Iterable[int]]
    outcomes: Callable[[OperatorAction], Counter[str]]


HANDLERS: dict[Kind, ActionHandler] = {}


def register(kinds: Iterable[Kind], handler: ActionHandler) -> None:
    """Have actions of `kinds` carried out by `handler`."""
    HANDLERS.update(dict.fromkeys(kinds, handler))


def handler_of(action: OperatorAction) -> ActionHandler | None:
    return HANDLERS.get(Kind(action.kind))


def pending_ids() -> set[int]:
    return {key for handler in set(HANDLERS.values()) for key in handler.pending_ids()}
