"""Verification of versions: each operation stands in the ledger as its versions left it, or an operator.

Skipped are operations that an operator corrected afterwards: the audit trail explains those. Part of the full
verification only, since it takes some queries for each operation with versions.
"""

from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter

from ingest.correction_audit import CORRECTING
from ingest.models import OperationVersion, OperatorActionItem, Webhook
from ingest.version_corrections import is_equal, standing, stands_under
from ledger.corrections import last_payment
from ledger.terms import PaymentTerms
from ledger.verification import Drift, Progress

VERSIONS_PER_PAGE = 500  # read at once
Outcome = OperationVersion.Outcome


def verify_versions(progress: Progress) -> Iterator[Drift]:
    """Yield each drift between the versions of an operation and the ledger."""
    done = OperationVersion.objects.filter(outcome=Outcome.DONE).defer("body")
    rows = done.order_by("operation_id", "position").iterator(VERSIONS_PER_PAGE)
    for operation_id, group in groupby(rows, attrgetter("operation_id")):
        versions = list(group)
        progress("versions", len(versions))
        webhook = Webhook.objects.defer("body").filter(operation_id=operation_id).first()
        if webhook is None or webhook.status != Webhook.Status.APPLIED:
            continue
        expected, found = standing(webhook, versions), stands_under(last_payment(operation_id))
        if not is_equal(expected, found) and not _is_corrected_by_operator(webhook):
            rule = "an operation stands as its last version left it"
            where = webhook.payer_inn, None, operation_id
            yield Drift("version", rule, _text(expected), _text(found), *where)


def _is_corrected_by_operator(webhook: Webhook) -> bool:
    done = OperatorActionItem.objects.filter(webhook=webhook, outcome=OperatorActionItem.Outcome.DONE)
    return done.filter(action__kind__in=CORRECTING).exists()


def _text(terms: PaymentTerms | None) -> str:
    return f"{terms.amount_kopecks} of {terms.inn}" if terms else "taken back"
