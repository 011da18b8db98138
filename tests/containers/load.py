"""Deliveries from several threads while containers are killed or replaced."""

import json
import threading
import time
from types import TracebackType
from uuid import uuid4

from tests.containers.deployment import Deployment

THREADS = 4
PAUSE_SECONDS = 0.05
PAYER = "2000000001"


class Load:
    """Deliver new operations of 1 ruble, each again until it is answered 200."""

    def __init__(self, deployment: Deployment, url: str) -> None:
        self.acknowledged = 0
        self.refused = 0  # attempts that were not answered 200
        self.longest_seconds = 0.0  # from the first attempt to the answer
        self._deployment = deployment
        self._url = url
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._deliver_until_ended) for _ in range(THREADS)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} deliveries, {self.refused} attempts refused, "
            f"the longest wait for a 200 was {self.longest_seconds:.1f} s"
        )

    def _deliver_until_ended(self) -> None:
        while not self._ended.wait(PAUSE_SECONDS):
            self._deliver_one()

    def _deliver_one(self) -> None:
        operation_id = str(uuid4())
        body = json.dumps(
            {
                "operation_id": operation_id,
                "amount": 1,
                "payer_inn": PAYER,
                "document_number": f"PAY-{operation_id[:13]}",
                "document_date": "2024-04-27T21:00:00Z",
            }
        ).encode()
        start = time.monotonic()
        while self._deployment.deliver(body, url=self._url).status != 200:
            with self._lock:
                self.refused += 1
            time.sleep(PAUSE_SECONDS)
        with self._lock:
            self.acknowledged += 1
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - start)
