"""Acts that are not yet carried out to their end: large ones, and those whose request died."""

import time
from functools import partial

import structlog

from core.db import transactions
from ingest import operator_actions

log = structlog.get_logger(__name__)


def run_pending(seconds: float) -> bool:
    """Carry out what is unfinished; whether there may be more.

    An act that fails, say because a webhook of it is locked, is tried once and holds up no other: the next
    sweep tries it again.
    """
    until = time.monotonic() + seconds
    for action_id in operator_actions.pending_ids():
        try:
            while transactions.run_with_retries(partial(operator_actions.run_chunk, action_id), tries_max=1):
                if time.monotonic() > until:
                    return True
        except Exception as exc:  # noqa: BLE001 whatever it is, the others are carried out
            log.warning(
                "operator action failed; the next sweep retries it", action=action_id, error=repr(exc)
            )
    return False
