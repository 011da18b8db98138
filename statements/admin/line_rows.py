"""Lines of statements, and webhooks without one, as rows of a table."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from django.urls import reverse
from django.utils.translation import gettext as _

from core.admin import Viewer, admin_link, link_if_visible
from ingest.models import Webhook
from ledger.money import format_rubles
from statements import buckets
from statements.admin.amounts import format_amount
from statements.models import Bucket, Match, MatchKey, StatementLine

_PAYER = re.compile(r"^Плательщик1?=(.+)$", re.MULTILINE | re.IGNORECASE)
_PAYEE = re.compile(r"^Получатель1?=(.+)$", re.MULTILINE | re.IGNORECASE)
_OWN_INN = re.compile(r"^ИНН[ /\\0-9]*\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LineRow:
    """A line: who paid, how much, and what became of it."""

    line: StatementLine
    name: str
    inn: str
    amount: str
    partner: str
    partner_hint: str

    @property
    def url(self) -> str:
        return reverse("admin:statements_statementline_change", args=[self.line.pk])

    @property
    def bucket(self) -> Bucket:
        return Bucket(self.line.bucket)

    @property
    def waits(self) -> bool:
        return self.bucket not in {*buckets.SETTLED, Bucket.OUTSIDE, Bucket.UNDECIDED}


@dataclass(frozen=True, slots=True)
class WebhookRow:
    """A webhook that no line explains."""

    key: int
    day: date
    number: str
    inn: str
    amount: str
    link: str
    source: str


def line_rows(found: Sequence[StatementLine], viewer: Viewer) -> Iterator[LineRow]:
    """Yield the rows, each with the webhook that it is matched with or proposed for."""
    partners = buckets.partners(found)
    webhooks = Webhook.objects.defer("body").in_bulk(partners.values())
    ranks = dict(Match.objects.filter(live=True, line__in=found).values_list("line_id", "rank"))
    for line in found:
        webhook = webhooks.get(partners.get(line.pk, 0))
        hint = Match.Rank(ranks[line.pk]).label if line.pk in ranks else ""
        yield LineRow(
            line=line,
            name=side_name(line),
            inn=line.payer_inn if line.side == StatementLine.Side.CREDIT else line.payee_inn,
            amount=signed_amount(line),
            partner=link_if_visible(viewer, webhook, _partner_text(line, webhook)) if webhook else "",
            partner_hint=str(hint),
        )


def webhook_rows(found: Sequence[MatchKey]) -> Iterator[WebhookRow]:
    for key in found:
        webhook = key.webhook
        yield WebhookRow(
            key=key.pk,
            day=key.day,
            number=webhook.document_number,
            inn=key.inn,
            amount=format_rubles(key.kopecks),
            link=admin_link(webhook, f"{str(webhook.operation_id)[:8]}…"),
            source=webhook.source,
        )


def side_name(line: StatementLine) -> str:
    """Return the name of the other side, as in the file."""
    found = (_PAYER if line.side == StatementLine.Side.CREDIT else _PAYEE).search(line.raw)
    return _OWN_INN.sub("", found[1].strip()) if found else ""


def signed_amount(line: StatementLine) -> str:
    """Return what the line adds to its account's balance."""
    is_negative = (line.side == StatementLine.Side.DEBIT) != line.is_reversal
    return format_amount(-line.kopecks if is_negative else line.kopecks, line.account.number)


def _partner_text(line: StatementLine, webhook: Webhook) -> str:
    """Return the number of the webhook's document, and where it differs from the line its amount."""
    text = _("No. {number}").format(number=webhook.document_number)
    if line.bucket == Bucket.AMOUNT_MISMATCH:
        return f"{text}, {format_rubles(webhook.amount_kopecks)}"
    return f"{text}, {webhook.payer_inn}" if line.bucket == Bucket.PAYER_MISMATCH else text
