"""schemathesis reads the API's document from a running house, and asks the house whether it is true."""

import schemathesis
from schemathesis.engine import events, from_schema

from tests.acceptance.house import House

SEED = 20261124
EXAMPLES_MAX = 40  # of each kind, for each operation


def test_schemathesis_finds_nothing(house: House) -> None:
    """All its checks, in all its phases."""
    config = schemathesis.Config.from_dict(
        {
            "seed": SEED,
            "checks": {"enabled": True},
            "generation": {"mode": "all", "max-examples": EXAMPLES_MAX, "deterministic": True},
        }
    )
    schema = schemathesis.openapi.from_url(f"{house.url}/api/openapi.json", config=config)
    found: list[str] = []
    tried = 0
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            tried += len(event.recorder.cases)
            for checks in event.recorder.checks.values():
                found += [
                    f"{check.failure_info.failure}\n{check.failure_info.code_sample}"
                    for check in checks
                    if check.failure_info is not None
                ]
        elif isinstance(event, events.NonFatalError | events.FatalError):
            found.append(repr(event))

    assert not found, "\n\n".join(found)
    assert tried > 500
