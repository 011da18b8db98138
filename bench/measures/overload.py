"""Responses, memory and backlog at twice the load that the system can take."""

# Requests come on a schedule over many connections. Whether web lets them wait or answers 503, everything
# answered 200 must be stored, and applied soon after.

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from bench.load import SentWebhook, closed_loop, open_loop, p99_milliseconds
from bench.measurements import Measurement, at_most
from bench.resource_usage import web_mib
from bench.systems import InvalidRun, System, drain
from tests.harness.procfile_stack import ProcfileStack

MEASURE = "overload"
TIMES_FULL_LOAD = 2.0
CONNECTIONS = 900  # with fewer, requests would queue in the sender instead of in web
STATUSES = (200, 503)
DRAIN_SECONDS_MAX = 60.0
WEB_GROWTH_MIB_MAX = 64.0


def measure(quick: bool, log: Callable[[str], None]) -> Iterator[Measurement]:
    rounds, seconds = (1, 4) if quick else (2, 10)
    results: dict[str, list[float]] = defaultdict(list)
    with System.PRIHOD.stack() as stack:
        full = closed_loop(stack.port, 2 if quick else 6).ok_per_second
        drain(stack)
        for number in range(1, rounds + 1):
            before = web_mib(stack)
            sent = open_loop(
                stack.port, per_second=TIMES_FULL_LOAD * full, seconds=seconds, connections=CONNECTIONS
            )
            results["drained"].append(drain(stack))
            results["growth"].append(web_mib(stack) - before)
            for name, value in summarize(sent).items():
                results[name].append(value)
            results["missing"].append(count_missing(stack, sent))
            text = ", ".join(f"{name} {values[-1]:.2f}" for name, values in results.items())
            log(f"round {number} of {rounds}, {TIMES_FULL_LOAD * full:.0f}/s: {text}")
        System.PRIHOD.require_verified(stack)
    yield from measurements(results)


def summarize(sent: Sequence[SentWebhook]) -> dict[str, float]:
    """Return shares of the responses in percent, and p99s in milliseconds."""
    summary = {}
    for status in STATUSES:
        seconds = [each.seconds for each in sent if each.status == status]
        summary[f"share {status}"] = 100 * len(seconds) / len(sent)
        if len(seconds) > 1:
            summary[f"p99 {status}"] = p99_milliseconds(seconds)
    summary["no response"] = 100 * sum(each.status not in STATUSES for each in sent) / len(sent)
    return summary


def count_missing(stack: ProcfileStack, sent: Sequence[SentWebhook]) -> int:
    """Return the number of webhooks answered 200 and not applied."""
    applied = {
        key for (key,) in stack.sql("SELECT operation_id FROM ingest_webhook WHERE status = 'applied'")
    }
    acknowledged = {each.operation_id.hex for each in sent if each.status == 200}
    if not acknowledged:
        raise InvalidRun("under overload nothing was answered 200")
    return len(acknowledged - applied)


def measurements(results: dict[str, list[float]]) -> Iterator[Measurement]:
    yield Measurement(MEASURE, "answered 200 and missing", "webhooks", results["missing"], bound=at_most(0))
    drained = at_most(DRAIN_SECONDS_MAX)
    yield Measurement(MEASURE, "backlog drained after", "s", results["drained"], bound=drained)
    growth = at_most(WEB_GROWTH_MIB_MAX)
    yield Measurement(MEASURE, "memory growth of web", "MiB", results["growth"], bound=growth)
    for status in STATUSES:
        yield Measurement(MEASURE, f"answered {status}", "%", results[f"share {status}"])
        if p99s := results[f"p99 {status}"]:
            yield Measurement(MEASURE, f"p99 of the responses {status}", "ms", p99s)
    yield Measurement(MEASURE, "no response", "%", results["no response"])
