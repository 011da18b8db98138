"""Tell a broken deployment from a bad webhook by posting a trial webhook: docs/decisions/0022.

Code ahead of its migration, a revoked grant, a missing table or a bug in a release makes every webhook fail.
The exception's class cannot distinguish these from a webhook that no release can apply. An ordinary webhook
can.
"""

import sys
import time
from random import randrange
from typing import cast
from uuid import uuid4

import structlog
from django.db import connection, transaction
from django.utils import timezone

from core.db import transactions
from ingest.models import Webhook
from ledger.models import Organization
from worker import applying
from worker.metrics import TRIAL_POSTING_FAILURES

log = structlog.get_logger(__name__)

TRIES_MAX = 2  # if the error is transient; admin pages wait for it
PAUSE_SECONDS = 1.0  # after an error: each wake-up would make the same batch fail again at once


def trial_error() -> Exception | None:
    """Apply a trial webhook as a worker does, and roll back; return the exception raised, or None.

    After a transient error it is tried once more.
    """
    error: Exception | None = None
    for _ in range(TRIES_MAX):
        error = _try_once()
        if error is None or not transactions.is_transient(error):
            break
        if not connection.in_atomic_block:
            connection.close()  # the connection itself may have failed
    return error


def _try_once() -> Exception | None:
    try:
        applied = _apply_and_roll_back()
    except applying.BatchFailed as exc:
        return cast(Exception, exc.__cause__)
    except Exception as exc:  # noqa: BLE001 a bug in a release can raise anything
        return exc
    return None if applied else RuntimeError("the trial webhook was not applied")


def _apply_and_roll_back() -> set[int]:
    """Post a webhook of an organization of its own, so that no real posting waits for it, or it for one.

    No real INN begins with 00.
    """
    now = timezone.now()
    organization = Organization(inn=f"00{randrange(10**10):010}", opened_at=now)
    webhook = Webhook(
        operation_id=uuid4(),
        payer_inn=organization.inn,
        amount_kopecks=1,
        document_number="trial",
        document_date=now,
        body=b"",
    )
    with transaction.atomic():
        organization.save(force_insert=True)
        webhook.save(force_insert=True)
        applied = applying.apply_ids([webhook.pk])
        transaction.set_rollback(True)
    return applied


def is_deployment_broken() -> bool:
    """Return whether the trial webhook fails as well: then a failure says nothing about its webhooks."""
    error = trial_error()
    if error is None:
        return False
    TRIAL_POSTING_FAILURES.inc()
    log.error("trial posting failed; no attempt is counted", error=repr(error))
    time.sleep(PAUSE_SECONDS)
    return True


def exit_if_deployment_broken() -> None:
    """Exit with status 1 if the trial fails, else 0; for a subprocess, which the trial may kill."""
    sys.exit(is_deployment_broken())
