"""Deliveries that did not become webhooks, bounded in number for each model and source."""

from collections import Counter
from collections.abc import Sequence
from random import randrange

from django.conf import settings

from ingest.models import DeliveryRecord

EVICTED_AT_ONCE_MAX = 1000  # deliveries


def save_bounded(row: DeliveryRecord) -> None:
    """Save `row`, and evict as `evict` does."""
    row.save(force_insert=True)
    evict([row])


def insert(rows: Sequence[DeliveryRecord]) -> None:
    """Insert `rows` with one statement for each model."""
    models: set[type[DeliveryRecord]] = {type(row) for row in rows}
    for model in sorted(models, key=lambda model: model.__name__):
        model.objects.bulk_create([row for row in rows if type(row) is model])


def evict(saved: Sequence[DeliveryRecord]) -> None:
    """Sometimes delete the oldest of the model and source of each saved row beyond DELIVERY_RECORDS_MAX.

    Finding the oldest walks the source's index, so only one save in DELIVERY_RECORDS_MAX / 100 does it; the
    bound may be exceeded by a few per cent. Keys can't tell the count: auto_increment_increment and rows of
    other sources leave gaps.
    """
    for (model, source), count in Counter((type(row), row.source) for row in saved).items():
        if randrange(max(settings.DELIVERY_RECORDS_MAX // 100, 1)) < count:
            _delete_oldest(model, source)


def _delete_oldest(model: type[DeliveryRecord], source: str) -> None:
    """Delete by primary key, so that concurrent evictions wait for each other instead of deadlocking."""
    newest_first = model.objects.filter(source=source).order_by("-pk").values_list("pk", flat=True)
    limit = settings.DELIVERY_RECORDS_MAX
    excess = list(newest_first[limit : limit + EVICTED_AT_ONCE_MAX])
    model.objects.filter(pk__in=excess).delete()
