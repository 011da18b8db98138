"""A trial posting, which tells a fault of the deployment from one of a webhook: docs/decisions/0022.

Code ahead of its migration, a revoked grant, a missing table or a bug in a release makes every webhook fail.
A class of exceptions could not tell these from a webhook that no release can apply; a webhook without any
peculiarity can.
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

TRIES_MAX = 2  # where its fault is transient; pages wait for it
PAUSE_SECONDS = 1.0  # after a fault: each wake-up would make the same batch fail again at once


def trial_error() -> Exception | None:
    """Apply a trial webhook as a worker does, and roll it back; return what was raised, None if nothing was.

    What is transient says nothing yet: then it is tried once more.
    """
    fault: Exception | None = None
    for _ in range(TRIES_MAX):
        fault = _try_once()
        if fault is None or not transactions.is_transient(fault):
            break
        if not connection.in_atomic_block:
            connection.close()  # it may be the connection that failed
    return fault


def _try_once() -> Exception | None:
    try:
        applied = _apply_and_roll_back()
    except applying.BatchFailed as exc:
        return cast(Exception, exc.__cause__)
    except Exception as exc:  # noqa: BLE001 a bug in a release can raise anything
        return exc
    return None if applied else RuntimeError("the trial webhook was not applied")


def _apply_and_roll_back() -> set[int]:
    """Its organization is its own, so that it waits for no posting and none waits for it. No INN begins with
    00.
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
    """Whether posting fails for the trial webhook, too: then a failure says nothing about its webhooks."""
    fault = trial_error()
    if fault is None:
        return False
    TRIAL_POSTING_FAILURES.inc()
    log.error("trial posting failed; no attempt is counted", error=repr(fault))
    time.sleep(PAUSE_SECONDS)
    return True


def exit_if_deployment_broken() -> None:
    """End the process with status 1 if posting fails; for a child, which the trial might kill."""
    sys.exit(is_deployment_broken())
