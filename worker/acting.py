"""Acts that are not yet carried out to their end: large ones, and those whose request died."""

import time
from functools import partial

import structlog

from ingest import acts
from worker import transactions

log = structlog.get_logger(__name__)


def carry_out_for(seconds: float) -> bool:
    """Carry out what is unfinished; whether there may be more.

    An act that fails, say because a webhook of it is locked, is tried once and holds up no other: the next
    sweep tries it again.
    """
    until = time.monotonic() + seconds
    for act_id in acts.unfinished():
        try:
            while transactions.run(partial(acts.carry_out, act_id), tries_max=1):
                if time.monotonic() > until:
                    return True
        except Exception as exc:  # noqa: BLE001 whatever it is, the others are carried out
            log.warning("act is not carried out; the next sweep tries again", act=act_id, error=repr(exc))
    return False
