"""The read side: what an organization has, and how it came to it."""

import re
from contextlib import suppress
from datetime import datetime

from django.http import HttpRequest, HttpResponse
from msgspec import UNSET

from api.authentication import NotFound, require_api_key
from api.models import ApiKey
from core import iso8601
from core.http import error_response, json_response, json_view
from ledger import queries
from ledger.inn import is_inn
from ledger.models import BalanceLog, Organization
from ledger.money import rubles
from ledger.schemas import Balance, History, HistoryEntry

HISTORY_LIMIT_DEFAULT = 10
HISTORY_LIMIT_MAX = 100
YEAR_MIN = 1000
_POSITIVE = re.compile(r"0*([1-9][0-9]*)")


@json_view("GET", "HEAD")
@require_api_key
def balance(request: HttpRequest, key: ApiKey, inn: str) -> HttpResponse:
    """Now, or with `at` at that instant."""
    try:
        at = _moment(request, "at")
    except ValueError as wrong:
        return error_response(400, str(wrong))
    organization = _find(key, inn)
    if at is None:
        return json_response(Balance(organization.inn, rubles(organization.balance_kopecks)))
    settled = queries.is_settled(organization, at)
    return json_response(Balance(organization.inn, rubles(queries.balance_at(organization, at)), settled))


@json_view("GET", "HEAD")
@require_api_key
def history(request: HttpRequest, key: ApiKey, inn: str) -> HttpResponse:
    """Newest first; the seq of the last line is the `before` of the page of older ones, and the seq of the
    first the `after` of the page of newer ones.
    """
    try:
        limit = _positive(request, "limit") or HISTORY_LIMIT_DEFAULT
        before, after = _positive(request, "before"), _positive(request, "after")
        since, until = _moment(request, "from"), _moment(request, "to")
        if before and after:
            raise ValueError("before, after: give one of them")  # noqa: TRY301 said as all others are
    except ValueError as wrong:
        return error_response(400, str(wrong))
    organization = _find(key, inn)
    settled = queries.is_settled(organization, until - queries.TIME_RESOLUTION) if until else UNSET
    lines = queries.history(
        organization,
        limit=min(limit, HISTORY_LIMIT_MAX),
        before=before,
        after=after,
        since=since,
        until=until,
    )
    return json_response(History(organization.inn, [_line(line) for line in lines], settled))


def _find(key: ApiKey, inn: str) -> Organization:
    """Raises NotFound, before any query if this key may not read it."""
    organization = queries.find_organization(inn) if is_inn(inn) and key.may_read(inn) else None
    if organization is None:
        raise NotFound("Organization not found")
    return organization


def _positive(request: HttpRequest, name: str) -> int | None:
    """The parameter as a number of at least 1, None when it isn't given; raises ValueError."""
    text = request.GET.get(name)
    if text is None:
        return None
    number = _POSITIVE.fullmatch(text)
    if not number:
        raise ValueError(f"{name}: must be a positive whole number")
    return min(int(number[1][:20]), queries.SEQ_MAX)  # twenty digits are more than SEQ_MAX already


def _moment(request: HttpRequest, name: str) -> datetime | None:
    """The parameter as a moment, None when it isn't given; raises ValueError."""
    text = request.GET.get(name)
    if text is None:
        return None
    with suppress(ValueError):
        moment = iso8601.parse(text)
        if moment.tzinfo is not None and moment.year >= YEAR_MIN:
            return moment
    raise ValueError(f"{name}: must be an ISO 8601 date and time with an offset (in which + is written %2B)")


def _line(line: BalanceLog) -> HistoryEntry:
    return HistoryEntry(
        amount=rubles(line.amount_kopecks),
        created_at=line.created_at,
        balance_after=rubles(line.balance_after_kopecks),
        seq=line.seq,
        operation_id=line.payment.operation_id,
        document_number=line.payment.document_number,
        document_date=line.payment.document_date,
    )
