"""Each delivery at its time, and what is wrong with the answers."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from devtools.simulator.client import NO_RESPONSE, Client, Response
from devtools.simulator.workload import PlannedDelivery

POLL_SECONDS = 0.001
NOT_SENT = Response(NO_RESPONSE, b"a conflict with something unacknowledged could be stored, rightly")


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """`repeated`: the operation had been acknowledged before this delivery was sent."""

    delivery: PlannedDelivery
    answer: Response
    repeated: bool
    latency_seconds: float

    def is_wrong(self) -> bool:
        """Whether no correct server answers so; of deliveries in flight together any may be the first."""
        if self.delivery.kind == "invalid":
            return self.answer.word not in ("invalid", "given up")
        if self.answer.word == "success":
            return self.repeated
        return self.answer.word not in ("already processed", "given up")


class Sender:
    """Delivers, in as many threads as call `deliver`; knows the ids of all acknowledged operations.

    With a rate, in deliveries per second, latency counts from when each was due: a server that keeps the
    bank waiting is that slow.
    """

    def __init__(self, server: Client, rate: float) -> None:
        self.acknowledged: set[str] = set()
        self._over: set[str] = set()
        self._server = server
        self._rate = rate
        self._started_at = time.monotonic()

    def deliver(self, slot: tuple[int, PlannedDelivery]) -> DeliveryResult:
        number, delivery = slot
        operation_id = delivery.operation.operation_id
        while delivery.kind == "conflict" and operation_id not in self._over:
            time.sleep(POLL_SECONDS)  # its operation has an earlier slot, so somebody is delivering it
        now = time.monotonic()
        due_at = self._started_at + number / self._rate if self._rate else now
        time.sleep(max(due_at - now, 0))
        repeated = operation_id in self.acknowledged
        try:
            answer = NOT_SENT if delivery.kind == "conflict" and not repeated else self._send(delivery)
        finally:
            if delivery.kind == "first":
                self._over.add(operation_id)
        return DeliveryResult(delivery, answer, repeated, time.monotonic() - due_at)

    def _send(self, delivery: PlannedDelivery) -> Response:
        answer = self._server.insist("POST", "/api/webhook/bank/", delivery.body)
        if answer.word in ("success", "already processed"):
            self.acknowledged.add(delivery.operation.operation_id)
        return answer


def find_wrong_responses(outcomes: Sequence[DeliveryResult]) -> Iterator[str]:
    told: dict[str, list[DeliveryResult]] = defaultdict(list)
    for outcome in outcomes:
        told[outcome.delivery.operation.operation_id].append(outcome)
    for operation_id, own in told.items():
        yield from (
            f"{outcome.delivery} was answered {outcome.answer}" for outcome in own if outcome.is_wrong()
        )
        words = [outcome.answer.word for outcome in own if not outcome.repeated]
        if words.count("success") > 1:
            yield f"operation {operation_id} was answered success {words.count('success')} times"
        # An attempt that got no answer, or a refusal, may have been stored all the same.
        if set(words) == {"already processed"} and all(outcome.answer.attempts == 1 for outcome in own):
            yield f"operation {operation_id} was answered already processed from the start"
    if given_up := sum(outcome.answer.word == "given up" for outcome in outcomes):
        yield f"{given_up} deliveries were never acknowledged"
