"""The sum of lines of one side; the bank's reversals reduce it."""

from django.db.models import BigIntegerField, Case, F, Sum, When


def signed_sum() -> Sum:
    """Return the aggregate over lines, in hundredths of their currency."""
    negative = When(is_reversal=True, then=-1 * F("kopecks"))
    return Sum(Case(negative, default=F("kopecks"), output_field=BigIntegerField()))
