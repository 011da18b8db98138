from typing import Any

import pytest

from ingest.error_fingerprint import fingerprint
from ingest.models import ERROR_FINGERPRINT_CHARS_MAX
from tests.factories import make_webhook
from worker import retries

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("ValueError('PAY-328 of 1234567890 is odd')", "ValueError('# of # is odd')"),
        (
            "IntegrityError(1062, \"Duplicate entry 'ccf0a86d-041b-4991-bcf7-e2352f7b8a4a' for key 'x'\")",
            "IntegrityError(1062, \"Duplicate entry '#' for key 'x'\")",
        ),
        ("RuntimeError('it  broke\\n')", "RuntimeError('it broke\\n')"),
        ("", ""),
    ],
)
def test_fingerprint_masks_tokens_with_digits(error: str, expected: str) -> None:
    assert fingerprint(error) == expected


def test_fingerprint_fits_its_column() -> None:
    assert len(fingerprint("é" * 1000)) == ERROR_FINGERPRINT_CHARS_MAX


def test_failed_webhook_has_a_fingerprint(settings: Any) -> None:
    settings.ATTEMPTS_MAX = 1
    webhook = make_webhook(attempts=1)

    retries.record_failure(webhook.pk, 1, "ValueError('number 17')")

    webhook.refresh_from_db()
    assert (webhook.status, webhook.error_fingerprint) == ("failed", "ValueError('number #')")
