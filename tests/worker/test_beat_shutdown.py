"""Beat ends on its first SIGTERM, and a second one does not disturb its end."""

import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest
from celery import beat, current_app


class Scheduler(beat.Scheduler):
    """Gets SIGTERM in its loop and again while it closes."""

    suppressed: type[BaseException] | None = None  # by the code that the signal interrupts
    turns = closed = 0

    def tick(self) -> float:  # type: ignore[override]
        assert not self.turns, "the loop continues after SIGTERM"
        self.turns += 1
        with suppress(*[self.suppressed] if self.suppressed else []):
            signal.raise_signal(signal.SIGTERM)
        return 0

    def close(self) -> None:
        assert not self.closed, "closed again by the signal's handler"
        self.closed += 1
        signal.raise_signal(signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("suppressed", [None, SystemExit])
def test_two_signals_close_the_scheduler_once(suppressed: type[BaseException] | None) -> None:
    service = beat.Service(current_app, scheduler_cls=Scheduler)
    service.scheduler.suppressed = suppressed
    current_app.Beat(app=current_app).install_sync_handler(service)

    service.start()

    assert (service.scheduler.turns, service.scheduler.closed) == (1, 1)


def test_signal_before_the_loop_ends_beat() -> None:
    service = beat.Service(current_app, scheduler_cls=Scheduler)
    current_app.Beat(app=current_app).install_sync_handler(service)

    with pytest.raises(SystemExit):
        signal.raise_signal(signal.SIGTERM)
    assert "scheduler" not in vars(service)  # a half-loaded one would raise another error
