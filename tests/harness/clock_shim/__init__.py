"""Wrong clocks for single processes, by libfaketime under LD_PRELOAD."""

from pathlib import Path

from tests.harness.servers import libfaketime


def wrong_clock(offset: str = "") -> dict[str, str]:
    """Return the environment of a process whose clock is off by `offset`, such as +1d.

    Without `offset`, the file `clock` in the stack's folder states it at any moment. Only the wall clock
    changes. The monotonic clock goes on, as on a machine whose clock is set.
    """
    common = {
        "LD_PRELOAD": f"{libfaketime()}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # In seconds. Otherwise every access to a clock reads the file, even to the monotonic clock.
        "FAKETIME_CACHE_DURATION": "1",
        "PYTHONPATH": str(Path(__file__).parent),  # for sitecustomize.py
    }
    return {**common, **({"FAKETIME": offset} if offset else {"FAKETIME_TIMESTAMP_FILE": "{folder}/clock"})}
