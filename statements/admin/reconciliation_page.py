"""The page of an account and a period: the proof, the identity, the buckets, and the lines."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext

from core.admin import may_view
from core.db.snapshot import snapshot
from ingest.models import Webhook
from ledger.money import format_rubles, group_digits
from statements import buckets, day_totals, listing
from statements.admin.amounts import format_amount, group_account
from statements.admin.bucket_buttons import Button, button_of, row_buttons
from statements.admin.bucket_texts import EXPLANATIONS
from statements.admin.line_rows import line_rows, webhook_rows
from statements.admin.period_form import Choice, choose
from statements.buckets import Identity, Total
from statements.models import Bucket, OwnAccount
from statements.period_proof import PeriodProof, prove
from statements.standing import today

ALL = "all"  # in the URL, for the lines of every bucket
DAYS_LISTED_MAX = 10
OF_WEBHOOKS_ONLY = gettext_lazy("Payments without a line belong to no account. They are on the page of")
_ADDED = frozenset({*buckets.WEBHOOK_BUCKETS, Bucket.REVERSED_BY_BANK, Bucket.AMOUNT_MISMATCH, Bucket.KEPT})


@dataclass(frozen=True, slots=True)
class Row:
    """A bucket: what is in it, and what an operator can do about it."""

    bucket: Bucket
    explanation: str | Promise
    total: Total
    query: str
    button: Button | None

    @property
    def count(self) -> str:
        return group_digits(self.total.count)

    @property
    def sum(self) -> str:
        return format_rubles(self.total.kopecks)

    @property
    def waits(self) -> bool:
        return bool(self.total.count) and self.bucket not in buckets.SETTLED


@dataclass(frozen=True, slots=True)
class Term:
    """A term of the identity, with the sign that it has there."""

    bucket: Bucket
    kopecks: int
    query: str

    @property
    def sign(self) -> str:
        return "+" if self.bucket in _ADDED else "−"

    @property
    def amount(self) -> str:
        return format_rubles(self.kopecks if self.bucket in _ADDED else -self.kopecks)


@snapshot()
def context(request: HttpRequest) -> dict[str, Any]:
    """Return the template's context, as of one moment; webhooks only for a viewer who may see them."""
    accounts = list(OwnAccount.objects.order_by("number"))
    choice, form = choose(request.GET, accounts)
    shown = [choice.account] if choice.account else accounts
    proofs = [(account, prove(account, choice.period, today())) for account in shown]
    sums = day_totals.merged(proof.sums for _account, proof in proofs)
    totals = buckets.totals(choice.scope, sums)
    identity = buckets.identity(choice.scope, totals, sums)
    rows = list(_rows(request, choice, totals))
    waiting = [row for row in rows if row.waits]
    return {
        "accounts": accounts,
        "choice": choice,
        "form": form,
        "errors": [error for errors in form.errors.values() for error in errors],
        "headline": _headline([proof for _account, proof in proofs], identity, waiting, totals),
        "proofs": [_proof_context(account, proof) for account, proof in proofs],
        "identity": _identity_context(choice, identity),
        "rows": rows,
        "of_all_accounts": OF_WEBHOOKS_ONLY,
        "undecided": Bucket.UNDECIDED in sums,
        **_list_context(request, choice),
    }


def _headline(
    proofs: list[PeriodProof], identity: Identity, waiting: list[Row], totals: Mapping[Bucket, Total]
) -> dict[str, str]:
    """Return the verdict on the period, worst first: its severity, a heading and what to do."""
    count = sum(row.total.count for row in waiting)
    if identity.unexplained:
        sentence = _(
            "Ledger and bank differ by {amount} that no list explains. Report this to the developers."
        )
        return _verdict(
            "critical", _("Unexplained"), sentence.format(amount=format_rubles(identity.unexplained))
        )
    if any(proof.difference or proof.breaks for proof in proofs):
        return _verdict(
            "critical", _("The balances don’t add up"), _("Upload the statement of these days again.")
        )
    if count:
        heading = ngettext("{n} difference to settle", "{n} differences to settle", count)
        sentence = _("The other lines are explained to the kopeck. Each list below says what to do.")
        return _verdict("warning", heading.format(n=group_digits(count)), sentence)
    if any(proof.missing or proof.unproven for proof in proofs):
        return _verdict(
            "warning", _("Days are missing"), _("What is here is explained. Upload the other days.")
        )
    if not any(total.count for total in totals.values()):
        return _verdict("info", _("Nothing to reconcile"), _("No money moved in this period."))
    return _verdict("ok", _("Everything is explained"), _("Ledger and bank agree to the kopeck."))


def _verdict(severity: str, heading: str, sentence: str) -> dict[str, str]:
    return {"severity": severity, "heading": heading, "sentence": sentence}


def _proof_context(account: OwnAccount, proof: PeriodProof) -> dict[str, Any]:
    def amount(hundredths: int | None) -> str:
        return format_amount(hundredths, account.number)

    return {
        "account": account,
        "number": group_account(account.number),
        "proof": proof,
        "terms": [
            ("", _("Opening balance"), amount(proof.opening)),
            ("+", pgettext("money", "Received"), amount(proof.received)),
            ("−", _("Paid out"), amount(proof.paid)),
            ("=", _("Closing balance"), amount(proof.closing)),
        ],
        "difference": amount(proof.difference) if proof.difference else "",
        "breaks": [(gap.day, amount(gap.closing), amount(gap.opening)) for gap in proof.breaks],
        "missing": proof.missing[:DAYS_LISTED_MAX],
        "missing_more": max(len(proof.missing) - DAYS_LISTED_MAX, 0),
        "unproven": proof.unproven[:DAYS_LISTED_MAX],
        "unproven_more": max(len(proof.unproven) - DAYS_LISTED_MAX, 0),
    }


def _identity_context(choice: Choice, identity: Identity) -> dict[str, Any]:
    ordered = sorted(identity.terms.items(), key=lambda term: (term[0] not in _ADDED, term[0]))
    return {
        "ledger": format_rubles(identity.ledger),
        "bank": format_rubles(identity.bank),
        "difference": format_rubles(identity.difference),
        "difference_explained": format_rubles(identity.difference - identity.unexplained),
        "terms": [Term(bucket, kopecks, choice.query(bucket=bucket.value)) for bucket, kopecks in ordered],
        "unexplained": format_rubles(identity.unexplained),
        "is_explained": not identity.unexplained,
    }


def _rows(request: HttpRequest, choice: Choice, totals: Mapping[Bucket, Total]) -> Iterator[Row]:
    for bucket, explanation in EXPLANATIONS.items():
        button = button_of(request.user, bucket, choice) if totals[bucket].count else None
        yield Row(bucket, explanation, totals[bucket], choice.query(bucket=bucket.value), button)


def _list_context(request: HttpRequest, choice: Choice) -> dict[str, Any]:
    """Return the page of rows that the URL chooses; of all lines, if it names no bucket."""
    name = request.GET.get("bucket", ALL)
    bucket = Bucket(name) if name in EXPLANATIONS else None
    cursor = listing.parse_cursor(request.GET.get("at", ""))
    shown: dict[str, Any] = {"bucket": bucket, "all_query": choice.query(bucket=ALL)}
    if bucket:
        shown["row_buttons"] = row_buttons(request.user, bucket, choice)
    is_of_webhooks = bucket in buckets.WEBHOOK_BUCKETS
    if is_of_webhooks and not may_view(request.user, Webhook):
        return shown | {"is_hidden": True}
    if bucket and is_of_webhooks:
        page = listing.webhooks_page(choice.scope, bucket, cursor)
        shown["webhooks"] = list(webhook_rows(page.rows))
    else:
        page = listing.lines_page(choice.scope, bucket, cursor)
        shown["lines"] = list(line_rows(page.rows, request.user))
    return shown | {
        direction: f"{choice.query(bucket=bucket.value if bucket else ALL, at=found)}#lines"
        for direction, found in (("previous", page.previous), ("next", page.next))
        if found
    }
