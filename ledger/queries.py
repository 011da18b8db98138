"""What readers ask of the ledger. Each costs a fixed number of index look-ups."""

from ledger.models import BalanceLog, Organization


def find_organization(inn: str) -> Organization | None:
    return Organization.objects.filter(inn=inn).first()


def history(organization: Organization, *, limit: int, before: int | None = None) -> list[BalanceLog]:
    """Up to `limit` log lines with their payments, newest first; with `before`, only of a smaller seq."""
    newest = organization.last_seq if before is None else min(before - 1, organization.last_seq)
    # Both ends, because seq has no gaps, and because with one end and a LIMIT MariaDB looks the
    # organization up and reads its log from the newest line down to the page.
    lines = organization.log.filter(seq__gt=newest - limit, seq__lte=newest)
    return list(lines.select_related("payment").order_by("-seq"))
