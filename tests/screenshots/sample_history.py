"""Generate a day of payments in the empty database, before the stack starts.

The ledger is written by the production code with a patched clock. Failures are written directly as rows,
because their cause no longer exists.
"""

import math
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.db import connection
from django.utils import timezone

from ingest.error_fingerprint import fingerprint
from ingest.models import Webhook
from ledger.models import Payment
from ledger.terms import PaymentTerms
from monitoring.models import MinuteThroughput
from monitoring.throughput import floor_to_minute
from statements.importing import import_statement
from statements.models import OwnAccount
from tests.payloads import payment_body
from tests.screenshots.sample_payments import PASSWORD, ROMASHKA, SUSPENSE, VASILEK, payment
from tests.screenshots.sample_statement import ACCOUNT, FILE, OWN_INN, OWN_NAME, Movement, statement
from worker.applying import apply_batch

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FULL = "OperationalError(1114, \"The table 'ledger_balancelog' is full\")"
DENIED = "OperationalError(1142, \"INSERT command denied to user 'prihod' for table 'ledger_payment'\")"
SATURDAY = 5
MISSING_DAYS = {17, 18}  # before yesterday
NAMES = {ROMASHKA: "ООО «Ромашка»", VASILEK: "ООО «Василёк»"}
OUTAGES = [  # (hours before now, duration in minutes, error)
    (10, 75, FULL),
    (3, 75, DENIED),
]


def make(seed: int = 7) -> None:
    """Create users, a day of payments up to now, and two causes of failures."""
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA synchronous = OFF")  # the data is disposable
    for name, group in [("olga", "Operators"), ("anton", "Auditors")]:
        person = User.objects.create_user(name, password=PASSWORD, is_staff=True)
        person.groups.add(Group.objects.get(name=group))
    now = timezone.now()
    rng = random.Random(seed)
    _make_suspense(rng, now)
    webhooks = [_received(rng, moment, now) for moment in _moments(rng, now - DAY, now)]
    while webhooks:  # one batch per five minutes, in the last hour one per webhook
        first = webhooks[0].received_at
        batch = (
            [w for w in webhooks if w.received_at < first + HOUR / 12]
            if first < now - 1.2 * HOUR
            else webhooks[:1]
        )
        Webhook.objects.bulk_create(batch)
        with at(batch[-1].received_at + timedelta(seconds=rng.lognormvariate(-4, 0.7))):
            apply_batch(len(batch))
        del webhooks[: len(batch)]
    _write_throughput()
    _make_statements(now)


def _make_statements(now: datetime) -> None:
    """Import the statements of two months, and write yesterday's for the upload."""
    yesterday = (now - DAY).date()
    opening = 1_000_000_00
    OwnAccount.objects.create(number=ACCOUNT, bank="Банк «Восток»", since=yesterday - 60 * DAY)
    for days in range(60, 0, -1):
        day = yesterday - days * DAY
        if day.weekday() < SATURDAY and days not in MISSING_DAYS:
            import_statement(statement(day, day, opening, []), f"kl_to_1c_{day}.txt")
    webhooks = Webhook.objects.filter(document_date__date=yesterday, payer_inn__regex=r"^\d+$").order_by("pk")
    movements = [
        Movement(NAMES.get(inn, "ООО «Пион»"), inn, number, kopecks)
        for inn, number, kopecks in webhooks.values_list("payer_inn", "document_number", "amount_kopecks")
    ]
    name, inn, number, kopecks = (
        getattr(movements[5], field) for field in ("name", "inn", "number", "kopecks")
    )
    movements[5] = Movement(name, inn, number, kopecks + 90_00)
    del movements[9]
    movements[:0] = [
        Movement(NAMES[ROMASHKA], ROMASHKA, "4512", 20_000_00, "Предоплата по договору 12/26"),
        Movement("Иванов Пётр Сергеевич", "", "901", 100_50, "Оплата заказа 55"),
        Movement(OWN_NAME, OWN_INN, "3", 50_000_00, "Перевод собственных средств"),
        Movement("ООО «Аренда»", "7702070139", "150", 1_700_00, "Аренда", is_out=True),
    ]
    (settings.DATA_DIR / FILE).write_bytes(statement(yesterday, yesterday, opening, movements))


def _make_suspense(rng: random.Random, now: datetime) -> None:
    """Post payments of private persons, some of them days ago."""
    for days, source in [(6.2, "tochka"), (4.1, "tbank"), (1.3, "tochka"), (1.1, "tochka")]:
        webhook = _received(rng, now - days * DAY, now)
        webhook.payer_inn, webhook.source, webhook.body = SUSPENSE, source, b""
        webhook.save()
        with at(webhook.received_at + timedelta(seconds=1)):
            apply_batch(1)


def _moments(rng: random.Random, begin: datetime, end: datetime) -> Iterator[datetime]:
    """Yield random moments, more by day than at night."""
    moment = begin
    while moment < end:
        yield moment
        hour = moment.hour + moment.minute / 60 + 3  # Moscow
        per_minute = 10 + 4 * math.sin((hour - 9) / 24 * 2 * math.pi)
        moment += timedelta(minutes=rng.expovariate(per_minute))


def _received(rng: random.Random, moment: datetime, now: datetime) -> Webhook:
    terms: PaymentTerms = payment(rng, moment.replace(hour=0, minute=0, second=0, microsecond=0))
    webhook = Webhook(
        operation_id=terms.operation_id,
        payer_inn=terms.inn,
        amount_kopecks=terms.amount_kopecks,
        document_number=terms.document_number,
        document_date=terms.document_date,
        body=payment_body(terms),
        received_at=moment,
    )
    for hours, minutes, cause in OUTAGES:
        if timedelta() < moment - (now - hours * HOUR) < timedelta(minutes=minutes):
            webhook.status, webhook.attempts = Webhook.Status.FAILED, 5
            webhook.last_error, webhook.error_fingerprint = cause, fingerprint(cause)
    return webhook


def _write_throughput() -> None:
    """Write the throughput rows that the scheduler would have written, minute by minute."""
    received = Counter(map(floor_to_minute, Webhook.objects.values_list("received_at", flat=True)))
    applied = Counter(map(floor_to_minute, Payment.objects.values_list("created_at", flat=True)))
    settled = floor_to_minute(timezone.now() - timedelta(minutes=2))
    first = settled - DAY  # not the first webhook: suspense is older
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
