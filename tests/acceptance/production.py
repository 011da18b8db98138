"""A stack with production settings in which some payments make the worker or the endpoint fail."""

import json
from collections.abc import Mapping
from http.client import HTTPConnection
from uuid import uuid4

from tests.factories import ROMASHKA
from tests.harness.launcher_stack import LauncherStack

SECRET = "a-bearer-token-of-the-bank"
DOCUMENT = "CONFIDENTIAL-NUMBER"
PRODUCTION = {
    "DEBUG": "0",
    "DJANGO_SETTINGS_MODULE": "tests.acceptance.poison_settings",
    "SECRET_KEY": "only-for-the-logs-suite-" * 3,
    "READ_AUTH": "none",
    "TRUSTED_PROXIES": "1",
    "WEBHOOK_BEARER_TOKENS": SECRET,
    "WORKER_PROCESSES": "1",
    "WEB_PROCESSES": "1",
    "ATTEMPTS_MAX": "2",
    "RETRY_BACKOFF_SECONDS": "0.1",
    "SWEEP_INTERVAL_SECONDS": "0.3",
}


def webhook(**changed: object) -> dict[str, object]:
    fields = {
        "operation_id": str(uuid4()),
        "amount": 145000,
        "payer_inn": ROMASHKA,
        "document_number": DOCUMENT,
    }
    return {**fields, "document_date": "2024-04-27T21:00:00Z", **changed}


def deliver(
    stack: LauncherStack, fields: object, headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Return the response's status and request id."""
    connection = HTTPConnection("127.0.0.1", stack.port, timeout=30)
    body = json.dumps(fields).encode()
    connection.request(
        "POST", "/api/webhook/bank/", body, {"Authorization": f"Bearer {SECRET}", **(headers or {})}
    )
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status, response.headers["X-Request-ID"]
