"""Match bank statements with webhooks, and print what explains the difference of ledger and bank."""

import json
import sys
from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from core.cli import day
from ledger.money import format_rubles
from statements import buckets, coverage
from statements.buckets import Identity, Scope, Total
from statements.matching import match
from statements.models import Bucket, OwnAccount

Json = dict[str, Any]


class Command(BaseCommand):
    help = (
        "Match the lines of imported bank statements with webhooks, and print each bucket's count and sum, "
        "and what explains the difference of ledger and bank. Posts nothing. Exit code 1 unless every bucket "
        "but matched, excluded and awaiting_statement is empty."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--account", help="only this account of ours; all by default")
        parser.add_argument("--from", dest="first", type=day, metavar="YYYY-MM-DD")
        parser.add_argument("--to", dest="last", type=day, metavar="YYYY-MM-DD")
        parser.add_argument("--json", action="store_true", help="print one JSON object; amounts are kopecks")
        parser.add_argument(
            "--full", action="store_true", help="decide every line and webhook again, not only what changed"
        )

    def handle(self, *_: Any, **options: Any) -> None:
        scope = Scope(options["account"], options["first"], options["last"])
        if scope.account and not OwnAccount.objects.filter(number=scope.account).exists():
            raise CommandError(f"account {scope.account} is not one of ours")
        if scope.first and scope.last and scope.last < scope.first:
            raise CommandError("the period ends before it begins")
        match(is_full=options["full"])
        totals = buckets.totals(scope)
        identity = buckets.identity(scope, totals)
        breaks = [gap for gap in coverage.breaks() if scope.account in {None, gap.account}]
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(scope, identity, totals, breaks), ensure_ascii=False))
        else:
            self.stdout.write("\n".join(_as_text(identity, totals, breaks)))
        if identity.unexplained or buckets.count_waiting(scope):
            sys.exit(1)


def _as_json(
    scope: Scope, identity: Identity, totals: dict[Bucket, Total], breaks: list[coverage.Break]
) -> Json:
    accounts = OwnAccount.objects.order_by("number")
    return {
        "account": scope.account,
        "from": _iso(scope.first),
        "to": _iso(scope.last),
        "ledger_kopecks": identity.ledger,
        "bank_kopecks": identity.bank,
        "difference_kopecks": identity.difference,
        "unexplained_kopecks": identity.unexplained,
        "terms_kopecks": {bucket.value: kopecks for bucket, kopecks in identity.terms.items()},
        "buckets": {
            bucket.value: {"count": total.count, "kopecks": total.kopecks} for bucket, total in totals.items()
        },
        "covered": {
            account.number: [[_iso(p.first), _iso(p.last)] for p in coverage.covered_periods(account)]
            for account in accounts
            if scope.account in {None, account.number}
        },
        "breaks": [
            {
                "account": gap.account,
                "day": _iso(gap.day),
                "closing_kopecks": gap.closing,
                "next_opening_kopecks": gap.opening,
            }
            for gap in breaks
        ],
    }


def _as_text(identity: Identity, totals: dict[Bucket, Total], breaks: list[coverage.Break]) -> list[str]:
    rows = [f"{bucket.value:<20}{total.count:>9}{_rubles(total.kopecks)}" for bucket, total in totals.items()]
    terms = [
        f"  {bucket.value:<18}{_rubles(kopecks)}" for bucket, kopecks in identity.terms.items() if kopecks
    ]
    return [
        *rows,
        "",
        f"ledger{_rubles(identity.ledger)} − bank{_rubles(identity.bank)} ={_rubles(identity.difference)}",
        *terms,
        *([f"  UNEXPLAINED {_rubles(identity.unexplained)}"] if identity.unexplained else []),
        *(
            f"{gap.account}: closing balance of {gap.day}{_rubles(gap.closing)}, "
            f"opening balance of the next day{_rubles(gap.opening)}"
            for gap in breaks
        ),
    ]


def _rubles(kopecks: int) -> str:
    return f"{format_rubles(kopecks).removesuffix(chr(0xA0) + '₽'):>20}"


def _iso(day: date | None) -> str | None:
    return None if day is None else day.isoformat()
