"""The read side: what an organization has, and how it came to it."""

import re

from django.http import HttpRequest, HttpResponse

from api.answers import answer, error, json_only
from ledger import queries
from ledger.answers import Balance, History, Line
from ledger.inn import is_inn
from ledger.models import BalanceLog, Organization
from ledger.money import rubles

HISTORY_LINES_DEFAULT = 10
HISTORY_LINES_MAX = 100
SEQ_MAX = 2**63 - 1
_POSITIVE = re.compile(r"0*([1-9][0-9]*)")


@json_only("GET", "HEAD")
def balance(request: HttpRequest, inn: str) -> HttpResponse:
    organization = _find(inn)
    if organization is None:
        return _organization_not_found()
    return answer(Balance(organization.inn, rubles(organization.balance_kopecks)))


@json_only("GET", "HEAD")
def history(request: HttpRequest, inn: str) -> HttpResponse:
    """Newest first; the seq of the last line is the `before` of the next page."""
    try:
        limit = _positive(request, "limit") or HISTORY_LINES_DEFAULT
        before = _positive(request, "before")
    except ValueError as wrong:
        return error(400, str(wrong))
    organization = _find(inn)
    if organization is None:
        return _organization_not_found()
    lines = queries.history(organization, limit=min(limit, HISTORY_LINES_MAX), before=before)
    return answer(History(organization.inn, [_line(line) for line in lines]))


def _find(inn: str) -> Organization | None:
    return queries.find_organization(inn) if is_inn(inn) else None


def _organization_not_found() -> HttpResponse:
    return error(404, "Organization not found")


def _positive(request: HttpRequest, name: str) -> int | None:
    """The parameter as a number of at least 1, None when it isn't given; raises ValueError."""
    text = request.GET.get(name)
    if text is None:
        return None
    number = _POSITIVE.fullmatch(text)
    if not number:
        raise ValueError(f"{name}: must be a positive whole number")
    return min(int(number[1][:20]), SEQ_MAX)  # twenty digits are more than SEQ_MAX already


def _line(line: BalanceLog) -> Line:
    return Line(
        amount=rubles(line.amount_kopecks),
        created_at=line.created_at,
        balance_after=rubles(line.balance_after_kopecks),
        seq=line.seq,
        operation_id=line.payment.operation_id,
        document_number=line.payment.document_number,
        document_date=line.payment.document_date,
    )
