"""Time of a webhook from receipt to applied, with all processes running at half of full load."""

# Taken from the times in the rows, which web and worker read from the clock of the same machine.

from collections.abc import Callable, Iterator

from bench.load import closed_loop, open_loop, p99_milliseconds
from bench.measurements import Measurement, at_most
from bench.systems import System, drain, require_stored
from tests.harness.procfile_stack import ProcfileStack

MEASURE = "latency"
P99_MILLISECONDS_MAX = 250.0


def measure(quick: bool, log: Callable[[str], None]) -> Iterator[Measurement]:
    rounds, seconds = (2, 3) if quick else (4, 8)
    with System.PRIHOD.stack() as stack:
        full = closed_loop(stack.port, seconds)
        log(f"full load: {full.ok_per_second:.0f}/s, drained {drain(stack):.1f} s later")
        p99s = []
        for number in range(1, rounds + 1):
            p99s.append(p99_at(stack, full.ok_per_second / 2, seconds))
            log(f"round {number} of {rounds}: p99 {p99s[-1]:.0f} ms")
        System.PRIHOD.require_verified(stack)
    yield Measurement(MEASURE, "p99 at half of full load", "ms", p99s, bound=at_most(P99_MILLISECONDS_MAX))


def p99_at(stack: ProcfileStack, per_second: float, seconds: float) -> float:
    """Return the p99 in milliseconds from receipt to applied of one round's webhooks."""
    last_id = stack.sql("SELECT MAX(id) FROM ingest_webhook")[0][0]
    sent = open_loop(stack.port, per_second=per_second, seconds=seconds)
    drain(stack)
    columns = "operation_id, received_at, applied_at"
    rows = stack.sql(f"SELECT {columns} FROM ingest_webhook WHERE id > %s", last_id)
    # The endpoint may still have stored requests of the closed loop, whose senders had already stopped.
    operation_ids = {each.operation_id.hex for each in sent}
    times = [received_applied for operation_id, *received_applied in rows if operation_id in operation_ids]
    acknowledged = sum(each.status == 200 for each in sent)
    require_stored(len(times), acknowledged=acknowledged, sent=len(sent))
    return p99_milliseconds([(applied - received).total_seconds() for received, applied in times])
