"""Record refused statement files, bounded in number and size."""

from django.utils import timezone

from statements.models import NAME_CHARS_MAX, RejectedStatement

REJECTED_MAX = 100
BODY_BYTES_MAX = 64 * 1024  # of each; enough to see what it is


def record_rejected(name: str, body: bytes, reason: str, code: str = "", line: int | None = None) -> None:
    """Record the file with the beginning of its bytes, and delete the oldest beyond REJECTED_MAX."""
    RejectedStatement.objects.create(
        at=timezone.now(),
        name=name[:NAME_CHARS_MAX],
        reason=reason[:255],
        code=code,
        line=line,
        body=body[:BODY_BYTES_MAX],
    )
    newest_first = RejectedStatement.objects.order_by("-pk").values_list("pk", flat=True)
    excess = list(newest_first[REJECTED_MAX : 2 * REJECTED_MAX])
    RejectedStatement.objects.filter(pk__in=excess).delete()
