"""Play a scenario of matching_scenarios.json's shape: store its webhooks, import its statement, match.

All through the product's own functions, in an empty database and one transaction, which the caller rolls
back. What differs from the scenario's expectation is returned as text.
"""

from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from django.conf import settings

from ingest.models import Webhook
from ledger.terms import PaymentTerms
from statements import buckets, day_totals
from statements.buckets import Scope
from statements.importing import import_statement
from statements.matching import match
from statements.models import Bucket, OwnAccount, StatementLine
from tests.factories import make_webhook, post_payments
from tests.statements.files import OWN, document, section, statement

OTHER_ACCOUNT = "40702810200000000002"
OWN_INN = "0011001101"
ONE_DAY = timedelta(days=1)

Scenario = Mapping[str, Any]


def play(scenario: Scenario) -> list[str]:
    """Return what differs, a line of text for each; empty if all is as expected."""
    OwnAccount.objects.create(number=OWN, since=date(2000, 1, 1))
    if not scenario.get("all_accounts_covered", True):
        OwnAccount.objects.create(number=OTHER_ACCOUNT, since=date(2000, 1, 1))
    ids = {store(webhook).pk: webhook["id"] for webhook in scenario["webhooks"]}
    imported = import_statement(statement_of(scenario), scenario["name"])
    match()
    sightings = imported.statement.sightings.values_list("line_id", "position")
    lines = {line: scenario["lines"][position - 1]["line"] for line, position in sightings}
    return [*differing_buckets(scenario, ids, lines), *differing_sums(scenario)]


def store(webhook: Mapping[str, Any]) -> Webhook:
    terms = PaymentTerms(
        uuid5(NAMESPACE_URL, webhook["id"]),
        webhook["inn"],
        webhook["kopecks"],
        webhook["number"],
        datetime.fromisoformat(webhook["document_date"]),
    )
    stored = make_webhook(terms, status=webhook["status"], source=webhook.get("source", "bank"))
    if webhook["status"] == "applied":
        post_payments(terms)
    return stored


def statement_of(scenario: Scenario) -> bytes:
    """Return a statement with the scenario's lines that proves itself."""
    days = [date.fromisoformat(line[day]) for line in scenario["lines"] for day in ("date", "booked_on")]
    days += [day_of(webhook) for webhook in scenario["webhooks"]]
    first, last = min(days), max(days)
    written = last + ONE_DAY if scenario.get("days_over", True) else last
    came_in = sum(line["kopecks"] * (-1 if line["reversal"] else 1) for line in scenario["lines"])
    balances = section(
        ДатаНачала=f"{first:%d.%m.%Y}",
        ДатаКонца=f"{last:%d.%m.%Y}",
        НачальныйОстаток="1000000.00",
        ВсегоПоступило=rubles(came_in),
        КонечныйОстаток=rubles(100_000_000 + came_in),
    )
    documents = [document(**document_fields(line)) for line in scenario["lines"]]
    text = statement(balances, *documents, ДатаСоздания=f"{written:%d.%m.%Y}", ВремяСоздания="09:00:00")
    return text.encode("cp1251")


def day_of(webhook: Mapping[str, Any]) -> date:
    at = datetime.fromisoformat(webhook["document_date"])
    return at.astimezone(settings.STATEMENT_TIME_ZONE).date()


def document_fields(line: Mapping[str, Any]) -> dict[str, str]:
    inn = line["inn"] or ""
    is_own_money = inn and not line["creditable"]
    return {
        "Номер": line["number"],
        "Дата": f"{date.fromisoformat(line['date']):%d.%m.%Y}",
        "Сумма": ("-" if line["reversal"] else "") + rubles(line["kopecks"]),
        "ПлательщикИНН": inn,
        "ПолучательИНН": inn if is_own_money else OWN_INN,
        "ДатаПоступило": f"{date.fromisoformat(line['booked_on']):%d.%m.%Y}",
    }


def rubles(kopecks: int) -> str:
    whole, rest = divmod(abs(kopecks), 100)
    return f"{'-' if kopecks < 0 else ''}{whole}.{rest:02}"


def differing_buckets(scenario: Scenario, ids: dict[int, str], lines: dict[int, int]) -> Iterator[str]:
    for name, expected in scenario["expect"].items():
        found = found_in(Bucket(name), ids, lines)
        if sorted(map(str, found)) != sorted(map(str, expected)):
            yield f"{name}: expected {expected}, found {found}"


def found_in(bucket: Bucket, ids: dict[int, str], lines: dict[int, int]) -> list[Any]:
    """Return the bucket's content as the scenarios write it: pairs, lines or webhooks."""
    if bucket in buckets.WEBHOOK_BUCKETS:
        return [ids[key.pk] for key in buckets.webhooks(Scope(), bucket).order_by("pk")]
    found: list[StatementLine] = list(buckets.lines(Scope(), bucket).order_by("pk"))
    partners = buckets.partners(found)
    if bucket in {Bucket.MISSING_WEBHOOK, Bucket.UNIDENTIFIED, Bucket.EXCLUDED}:
        return [lines[line.pk] for line in found]
    return [[ids.get(partners.get(line.pk, 0)), lines[line.pk]] for line in found]


def differing_sums(scenario: Scenario) -> Iterator[str]:
    identity, accounts = buckets.identity(Scope()), OwnAccount.objects.values_list("pk", flat=True)
    if identity.unexplained:
        yield f"unexplained: {identity.unexplained} kopecks of {identity}"
    sums = day_totals.merged(day_totals.sums(account, day_totals.ALL_DAYS) for account in accounts)
    if (shown := buckets.identity(Scope(), sums=sums)) != identity:
        yield f"pages show {shown} instead of {identity}"
    for name, expected in (scenario.get("identity_kopecks") or {}).items():
        if getattr(identity, name) != expected:
            yield f"{name}: expected {expected}, found {getattr(identity, name)}"
