"""How long a webhook takes from receipt to applied, with all of the house running at half of full load."""

# By the moments in the rows themselves, which web and worker take from the clock of the same machine.

from collections.abc import Callable, Iterator

from bench.load import closed_loop, open_loop, p99_milliseconds
from bench.measurements import Bound, Measurement
from bench.systems import System, drain, require_stored
from tests.harness.procfile_stack import ProcfileStack

P99_MILLISECONDS_MAX = 250.0


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Measurement]:
    rounds, seconds = (2, 3) if quick else (4, 8)
    with System.OURS.stack() as stack:
        full = closed_loop(stack.port, seconds)
        say(f"full load: {full.ok_per_second:.0f}/s, drained {drain(stack):.1f} s later")
        p99s = []
        for number in range(1, rounds + 1):
            p99s.append(p99_at(stack, full.ok_per_second / 2, seconds))
            say(f"round {number} of {rounds}: p99 {p99s[-1]:.0f} ms")
        System.OURS.require_verified(stack)
    what = "p99 at half of full load"
    yield Measurement(
        "receipt to applied", what, "ms", p99s, bound=Bound(P99_MILLISECONDS_MAX, at_least=False)
    )


def p99_at(stack: ProcfileStack, per_second: float, seconds: float) -> float:
    """In milliseconds, of the webhooks of one round."""
    newest = stack.sql("SELECT MAX(id) FROM ingest_webhook")[0][0]
    sent = open_loop(stack.port, per_second=per_second, seconds=seconds)
    drain(stack)
    rows = stack.sql("SELECT operation_id, received_at, applied_at FROM ingest_webhook WHERE id > %s", newest)
    # The door may still have taken in what others had sent before, and were no longer there to be answered.
    ours = {each.operation_id.hex for each in sent}
    taken = [moments for operation_id, *moments in rows if operation_id in ours]
    answered = sum(each.status == 200 for each in sent)
    require_stored(len(taken), answered=answered, sent=len(sent))
    return p99_milliseconds([(applied - received).total_seconds() for received, applied in taken])
