"""Sends each delivery at its time, and finds responses that no correct server gives."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from devtools.simulator.client import NO_RESPONSE, Client, Response
from devtools.simulator.workload import PlannedDelivery

POLL_SECONDS = 0.001
NOT_SENT = Response(
    NO_RESPONSE, b"not sent: a conflict with an unacknowledged delivery may rightly be stored"
)


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """`repeated`: the operation had been acknowledged before this delivery was sent."""

    delivery: PlannedDelivery
    response: Response
    repeated: bool
    latency_seconds: float

    def is_wrong(self) -> bool:
        """Return whether no correct server responds so. Of concurrent deliveries any may be the first."""
        if self.delivery.kind == "invalid":
            return self.response.outcome not in ("invalid", "given up")
        if self.response.outcome == "success":
            return self.repeated
        return self.response.outcome not in ("already processed", "given up")


class Sender:
    """Sends deliveries from all threads that call `deliver`; `acknowledged` has the acknowledged operations.

    With a rate, in deliveries per second, latency counts from the scheduled time, so that a server which
    delays later deliveries is charged for them (no coordinated omission).
    """

    def __init__(self, client: Client, rate: float) -> None:
        self.acknowledged: set[str] = set()
        self._completed: set[str] = set()
        self._client = client
        self._rate = rate
        self._started_at = time.monotonic()

    def deliver(self, slot: tuple[int, PlannedDelivery]) -> DeliveryResult:
        number, delivery = slot
        operation_id = delivery.operation.operation_id
        while delivery.kind == "conflict" and operation_id not in self._completed:
            time.sleep(POLL_SECONDS)  # the operation has an earlier slot, so another thread is delivering it
        now = time.monotonic()
        scheduled_at = self._started_at + number / self._rate if self._rate else now
        time.sleep(max(scheduled_at - now, 0))
        repeated = operation_id in self.acknowledged
        try:
            response = NOT_SENT if delivery.kind == "conflict" and not repeated else self._send(delivery)
        finally:
            if delivery.kind == "first":
                self._completed.add(operation_id)
        return DeliveryResult(delivery, response, repeated, time.monotonic() - scheduled_at)

    def _send(self, delivery: PlannedDelivery) -> Response:
        response = self._client.request("POST", "/api/webhook/bank/", delivery.body)
        if response.outcome in ("success", "already processed"):
            self.acknowledged.add(delivery.operation.operation_id)
        return response


def find_wrong_responses(results: Sequence[DeliveryResult]) -> Iterator[str]:
    """Yield a sentence for each response, or combination of responses, that no correct server gives."""
    by_operation: dict[str, list[DeliveryResult]] = defaultdict(list)
    for result in results:
        by_operation[result.delivery.operation.operation_id].append(result)
    for operation_id, of_operation in by_operation.items():
        yield from (
            f"{result.delivery} was answered {result.response}"
            for result in of_operation
            if result.is_wrong()
        )
        outcomes = [result.response.outcome for result in of_operation if not result.repeated]
        if outcomes.count("success") > 1:
            yield f"operation {operation_id} was answered success {outcomes.count('success')} times"
        # An attempt without a response, or with a 503, may have been stored all the same.
        is_first_try = all(result.response.attempts == 1 for result in of_operation)
        if set(outcomes) == {"already processed"} and is_first_try:
            yield f"operation {operation_id} was answered already processed from the start"
    if given_up := sum(result.response.outcome == "given up" for result in results):
        yield f"{given_up} deliveries were never acknowledged"
