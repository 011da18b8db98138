"""Clocks that are wrong, for single processes: libfaketime under LD_PRELOAD."""

from pathlib import Path

from tests.harness.servers import libfaketime

SHIM = Path(__file__).with_name("sleeping")


def wrong_clock(offset: str = "") -> dict[str, str]:
    """The environment of a process whose clock is off by `offset`, such as +1d; without one, by what stands
    at that moment in the house's file `clock`.

    Only the wall clock: the monotonic one goes on, as it does on a machine whose clock is set.
    """
    common = {
        "LD_PRELOAD": f"{libfaketime()}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # In seconds. Without it the file is read again for every look at a clock, also at the monotonic one.
        "FAKETIME_CACHE_DURATION": "1",
        "PYTHONPATH": str(SHIM),
    }
    return {**common, **({"FAKETIME": offset} if offset else {"FAKETIME_TIMESTAMP_FILE": "{folder}/clock"})}
