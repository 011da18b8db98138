"""A day that a bank might have had: made before the house starts, in its empty database.

The ledger is written by the code that always writes it; only the clock is set back. What failed at night is
written as it stood afterwards, because its cause is gone.
"""

import math
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

from django.contrib.auth.models import Group, User
from django.db import connection
from django.utils import timezone

from ingest.error_fingerprint import fingerprint
from ingest.models import Webhook
from ledger.models import Payment
from ledger.terms import PaymentTerms
from monitoring.models import MinuteThroughput
from monitoring.throughput import floor_to_minute
from tests.payloads import payment_body
from tests.screenshots.sample_payments import PASSWORD, payment
from worker.applying import apply_batch

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FULL = "OperationalError(1114, \"The table 'ledger_balancelog' is full\")"
DENIED = "OperationalError(1142, \"INSERT command denied to user 'prihod' for table 'ledger_payment'\")"
TROUBLES = [  # hours before now, minutes long
    (10, 75, FULL),
    (3, 75, DENIED),
]


def make(seed: int = 7) -> None:
    """People, a day of payments up to this moment, and two causes of failures."""
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA synchronous = OFF")  # nobody would mourn this day
    for name, group in [("olga", "Operators"), ("anton", "Auditors")]:
        person = User.objects.create_user(name, password=PASSWORD, is_staff=True)
        person.groups.add(Group.objects.get(name=group))
    now = timezone.now()
    dice = random.Random(seed)
    told = [_received(dice, moment, now) for moment in _moments(dice, now - DAY, now)]
    while told:  # long ago a minute together, in the last hour each as it came
        first = told[0].received_at
        together = (
            [w for w in told if w.received_at < first + HOUR / 60] if first < now - 1.2 * HOUR else told[:1]
        )
        Webhook.objects.bulk_create(together)
        with at(together[-1].received_at + timedelta(seconds=dice.lognormvariate(-4, 0.7))):
            apply_batch(len(together))
        del told[: len(together)]
    _count_minutes()


def _moments(dice: random.Random, begin: datetime, end: datetime) -> Iterator[datetime]:
    """More by day than at night, and never the same."""
    moment = begin
    while moment < end:
        yield moment
        hour = moment.hour + moment.minute / 60 + 3  # Moscow
        per_minute = 10 + 4 * math.sin((hour - 9) / 24 * 2 * math.pi)
        moment += timedelta(minutes=dice.expovariate(per_minute))


def _received(dice: random.Random, moment: datetime, now: datetime) -> Webhook:
    told: PaymentTerms = payment(dice, moment.replace(hour=0, minute=0, second=0, microsecond=0))
    webhook = Webhook(
        operation_id=told.operation_id,
        payer_inn=told.inn,
        amount_kopecks=told.amount_kopecks,
        document_number=told.document_number,
        document_date=told.document_date,
        body=payment_body(told),
        received_at=moment,
    )
    for hours, minutes, cause in TROUBLES:
        if timedelta() < moment - (now - hours * HOUR) < timedelta(minutes=minutes):
            webhook.status, webhook.attempts = Webhook.Status.FAILED, 5
            webhook.last_error, webhook.error_fingerprint = cause, fingerprint(cause)
    return webhook


def _count_minutes() -> None:
    """What the scheduler would have counted by now, minute after minute."""
    received = Counter(map(floor_to_minute, Webhook.objects.values_list("received_at", flat=True)))
    applied = Counter(map(floor_to_minute, Payment.objects.values_list("created_at", flat=True)))
    settled = floor_to_minute(timezone.now() - timedelta(minutes=2))
    first = min(received)
    minutes = (first + n * timedelta(minutes=1) for n in range(24 * 60))
    MinuteThroughput.objects.bulk_create(
        MinuteThroughput(started_at=minute, received=received[minute], applied=applied[minute])
        for minute in minutes
        if minute < settled
    )


@contextmanager
def at(moment: datetime) -> Iterator[None]:
    with patch("django.utils.timezone.now", lambda: moment.astimezone(UTC)):
        yield
