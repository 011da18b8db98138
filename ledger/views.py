"""The read API: an organization's balance and its history."""

import re
from contextlib import suppress
from datetime import datetime

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from msgspec import UNSET

from api.authentication import NotFound, require_api_key
from api.models import ApiKey
from core import iso8601
from core.http import error_response, json_response, json_view
from ledger import queries
from ledger.inn import is_inn
from ledger.models import Organization
from ledger.money import rubles
from ledger.queries import HistoryRow
from ledger.schemas import Balance, History, HistoryEntry

HISTORY_LIMIT_DEFAULT = 10
HISTORY_LIMIT_MAX = 100
YEAR_MIN = 1000
_POSITIVE = re.compile(r"0*([1-9][0-9]*)")


@json_view("GET", "HEAD")
@require_api_key
def balance(request: HttpRequest, key: ApiKey, inn: str) -> HttpResponse:
    """Return the balance now, or at the instant `at`."""
    try:
        at = _datetime_parameter(request, "at")
    except ValueError as exc:
        return error_response(400, str(exc))
    organization = _find(key, inn)
    if at is None:
        return json_response(Balance(organization.inn, rubles(organization.balance_kopecks)))
    settled = queries.is_settled(organization, at)
    return json_response(Balance(organization.inn, rubles(queries.balance_at(organization, at)), settled))


@json_view("GET", "HEAD")
@require_api_key
def history(request: HttpRequest, key: ApiKey, inn: str) -> HttpResponse:
    """Return a page of log entries, newest first.

    The seq of the last entry is the `before` of the page of older entries, and the seq of the first entry the
    `after` of the page of newer ones.
    """
    try:
        limit = _positive_parameter(request, "limit") or HISTORY_LIMIT_DEFAULT
        before, after = _positive_parameter(request, "before"), _positive_parameter(request, "after")
        since, until = _datetime_parameter(request, "from"), _datetime_parameter(request, "to")
        if before and after:
            raise ValueError("before, after: give one of them")  # noqa: TRY301 answered like the others
    except ValueError as exc:
        return error_response(400, str(exc))
    organization = _find(key, inn)
    settled = queries.is_settled(organization, until - queries.TIME_RESOLUTION) if until else UNSET
    entries = queries.history(
        organization,
        limit=min(limit, HISTORY_LIMIT_MAX),
        before=before,
        after=after,
        since=since,
        until=until,
    )
    return json_response(History(organization.inn, [_history_entry(entry) for entry in entries], settled))


def _find(key: ApiKey, inn: str) -> Organization:
    """Return the organization. Raise NotFound, before any query if this key may not read it."""
    may_read = is_inn(inn) and key.may_read(inn)
    organization = queries.find_organization(inn, settings.READ_DATABASE) if may_read else None
    if organization is None:
        raise NotFound("Organization not found")
    return organization


def _positive_parameter(request: HttpRequest, name: str) -> int | None:
    """Return the parameter as a number of at least 1, None if absent. Raise ValueError if invalid."""
    text = request.GET.get(name)
    if text is None:
        return None
    number = _POSITIVE.fullmatch(text)
    if not number:
        raise ValueError(f"{name}: must be a positive whole number")
    return min(int(number[1][:20]), queries.SEQ_MAX)  # twenty digits already exceed SEQ_MAX


def _datetime_parameter(request: HttpRequest, name: str) -> datetime | None:
    """Return the parameter as an aware datetime, None if absent. Raise ValueError if invalid."""
    text = request.GET.get(name)
    if text is None:
        return None
    with suppress(ValueError):
        at = iso8601.parse(text)
        if at.tzinfo is not None and at.year >= YEAR_MIN:
            return at
    raise ValueError(f"{name}: must be an ISO 8601 date and time with an offset (in which + is written %2B)")


def _history_entry(entry: HistoryRow) -> HistoryEntry:
    return HistoryEntry(
        amount=rubles(entry.amount_kopecks),
        created_at=entry.created_at,
        balance_after=rubles(entry.balance_after_kopecks),
        seq=entry.seq,
        operation_id=entry.operation_id,
        document_number=entry.document_number,
        document_date=entry.document_date,
        reverses=entry.reverses or UNSET,
    )
