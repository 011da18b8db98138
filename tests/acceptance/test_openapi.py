"""schemathesis tests a running stack against its own OpenAPI document."""

from pathlib import Path

import schemathesis
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from schemathesis.core.failures import Failure
from schemathesis.engine import StopReason, events, from_schema
from schemathesis.openapi.checks import RejectedPositiveData

from tests.acceptance.conftest import StackBuilder
from tests.ingest.test_signatures import pem

SEED = 20261124
EXAMPLES_MAX = 20  # per kind and operation
EXCLUSIVE = {"error": "before, after: give one of them"}
TOKEN = "only-the-bank-knows-this"


def test_schemathesis_finds_no_failure(new_stack: StackBuilder, tmp_path: Path) -> None:
    """Run all checks in all phases, with credentials for our own contract only."""
    key_file = tmp_path / "tochka.pem"
    key_file.write_bytes(pem(generate_private_key(65537, 2048).public_key()))
    others = {
        "TBANK_BEARER_TOKENS": f"{TOKEN}-of-another-bank",
        "TOCHKA_PUBLIC_KEY_FILE": str(key_file),
        "TOCHKA_CUSTOMER_CODES": "300000000",
    }
    with new_stack(READ_AUTH="key", WEBHOOK_BEARER_TOKENS=TOKEN, **others) as stack:
        key = stack.manage("apikey", "create", "--name", "schemathesis", "--read-all").stdout.strip()
        found, tried, reason = run(f"{stack.url}/api/openapi.json", key)

    assert not found, "\n\n".join(found)
    assert reason == StopReason.COMPLETED
    assert tried > 300


def filter_failure(_: object, failure: Failure, __: object, response: schemathesis.Response) -> bool:
    """Ignore what OpenAPI can't express: two parameters that exclude each other. The description says so."""
    return not (isinstance(failure, RejectedPositiveData) and response.json() == EXCLUSIVE)


def run(document: str, key: str) -> tuple[list[str], int, StopReason | None]:
    """Return the failures with requests to reproduce them, the number of requests, and the stop reason."""
    config = schemathesis.Config.from_dict(
        {
            "seed": SEED,
            "checks": {"enabled": True},
            "generation": {"mode": "all", "max-examples": EXAMPLES_MAX, "deterministic": True},
            "auth": {"openapi": {"apiKey": {"bearer": key}, "bearer": {"bearer": TOKEN}}},
        }
    )
    schema = schemathesis.openapi.from_url(document, config=config)
    schema.hook(filter_failure)
    found: list[str] = []
    tried = 0
    reason = None
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            tried += len(event.recorder.cases)
            for checks in event.recorder.checks.values():
                failures = [check.failure_info for check in checks if check.failure_info]
                found += [f"{failure.failure}\n{failure.code_sample}" for failure in failures]
        elif isinstance(event, events.NonFatalError | events.FatalError):
            found.append(repr(event))
        elif isinstance(event, events.EngineFinished):
            reason = event.stop_reason
            found += [str(failure) for failure in event.failures]
    return found, tried, reason
