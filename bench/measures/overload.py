"""What becomes of answers, memory and backlog when twice as much comes as the house can take."""

# The load comes by the clock, over more connections than the door has threads. Whether the door sheds with
# 503 or lets requests wait, what it has answered 200 must be there, and must be applied soon after.

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from bench.load import SentWebhook, closed_loop, open_loop, p99_milliseconds
from bench.measurements import Bound, Measurement
from bench.resource_usage import web_mib
from bench.systems import InvalidRun, System, drain
from tests.harness.procfile_stack import ProcfileStack

MEASURE = "overload"
TIMES_FULL_LOAD = 2.0
CONNECTIONS = 900  # with fewer the requests would pile up in the sender, before anybody could shed them
STATUSES = (200, 503)
DRAINED_AFTER_SECONDS_MAX = 60.0
WEB_GROWS_BY_MIB_MAX = 64.0


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Measurement]:
    rounds, seconds = (1, 4) if quick else (2, 10)
    taken: dict[str, list[float]] = defaultdict(list)
    with System.OURS.stack() as stack:
        full = closed_loop(stack.port, 2 if quick else 6).ok_per_second
        drain(stack)
        for number in range(1, rounds + 1):
            before = web_mib(stack)
            sent = open_loop(
                stack.port, per_second=TIMES_FULL_LOAD * full, seconds=seconds, connections=CONNECTIONS
            )
            taken["drained"].append(drain(stack))
            taken["growth"].append(web_mib(stack) - before)
            for name, value in answers(sent).items():
                taken[name].append(value)
            taken["missing"].append(missing(stack, sent))
            told = ", ".join(f"{name} {values[-1]:.2f}" for name, values in taken.items())
            say(f"round {number} of {rounds}, {TIMES_FULL_LOAD * full:.0f}/s: {told}")
        System.OURS.require_verified(stack)
    yield from figures(taken)


def answers(sent: Sequence[SentWebhook]) -> dict[str, float]:
    """Shares of the answers in percent, and p99s in milliseconds."""
    told = {}
    for status in STATUSES:
        seconds = [each.seconds for each in sent if each.status == status]
        told[f"share {status}"] = 100 * len(seconds) / len(sent)
        if len(seconds) > 1:
            told[f"p99 {status}"] = p99_milliseconds(seconds)
    told["no answer"] = 100 * sum(each.status not in STATUSES for each in sent) / len(sent)
    return told


def missing(stack: ProcfileStack, sent: Sequence[SentWebhook]) -> int:
    """How many were answered 200 and are not applied."""
    applied = {
        key for (key,) in stack.sql("SELECT operation_id FROM ingest_webhook WHERE status = 'applied'")
    }
    acknowledged = {each.operation_id.hex for each in sent if each.status == 200}
    if not acknowledged:
        raise InvalidRun("under overload nothing was answered 200")
    return len(acknowledged - applied)


def figures(taken: dict[str, list[float]]) -> Iterator[Measurement]:
    def at_most(limit: float) -> Bound:
        return Bound(limit, at_least=False)

    yield Measurement(MEASURE, "answered 200 and missing", "webhooks", taken["missing"], bound=at_most(0))
    drained = at_most(DRAINED_AFTER_SECONDS_MAX)
    yield Measurement(MEASURE, "backlog drained after", "s", taken["drained"], bound=drained)
    growth = at_most(WEB_GROWS_BY_MIB_MAX)
    yield Measurement(MEASURE, "memory of web grows by", "MiB", taken["growth"], bound=growth)
    for status in STATUSES:
        yield Measurement(MEASURE, f"answered {status}", "%", taken[f"share {status}"])
        if p99s := taken[f"p99 {status}"]:
            yield Measurement(MEASURE, f"p99 of the answers {status}", "ms", p99s)
    yield Measurement(MEASURE, "not answered", "%", taken["no answer"])
