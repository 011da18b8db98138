"""Celery tasks: the matching runs when it is due, and every night after the ledger's verification."""

from celery import shared_task

from ingest import doorbell
from statements import matching, standing
from worker import nightly_verification

MATCH_TASK = "statements.tasks.match_changed"


@shared_task(ignore_result=True)
def match_changed() -> None:
    """Match unless another run has left nothing to do since this one was requested."""
    if matching.is_due():
        matching.match_if_due()


@shared_task(ignore_result=True)
def request_matching() -> None:
    """Have a worker match if that is due; without a broker, match here."""
    if matching.is_due() and not doorbell.ring_now(MATCH_TASK):
        matching.match_if_due()


nightly_verification.run_afterwards(matching.match)
nightly_verification.run_afterwards(standing.check)
