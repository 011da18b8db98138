"""Acts that are not yet carried out to their end: large ones, and those whose request died."""

import time
from functools import partial

from ingest import acts
from worker import transactions


def carry_out_for(seconds: float) -> bool:
    """Carry out what is unfinished; whether there may be more. Raises as transactions.run does."""
    until = time.monotonic() + seconds
    for act_id in acts.unfinished():
        while transactions.run(partial(acts.carry_out, act_id)):
            if time.monotonic() > until:
                return True
    return False
