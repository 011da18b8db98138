"""manage.py export_1c: print a period's postings in the format of bank statements."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from core.cli import day
from ledger.models import Organization
from ledger.statement import Period
from statements.export_1c import ExportTooLarge, export
from statements.models import OwnAccount


class Command(BaseCommand):
    help = "Print a period's postings, of one organization or of all, as 1CClientBankExchange."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--from", dest="first", type=day, required=True, help="YYYY-MM-DD")
        parser.add_argument("--to", dest="last", type=day, required=True, help="included")
        parser.add_argument("--inn", help="of the organization; without it, of all")
        parser.add_argument("--account", help="own account that the file names; needed if there are several")
        parser.add_argument("--output", type=Path, help="file; without it, standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        inn = options["inn"]
        if inn and not Organization.objects.filter(inn=inn).exists():
            raise CommandError(f"no organization has the INN {inn}")
        period = Period(options["first"], options["last"], settings.STATEMENT_TIME_ZONE)
        if options["last"] < options["first"]:
            raise CommandError("the period ends before it begins")
        try:
            body = export(_account(options["account"]), period, inn)
        except ExportTooLarge as exc:
            raise CommandError("the file would be too large: choose a shorter period") from exc
        if output := options["output"]:
            output.write_bytes(body)
        else:
            sys.stdout.buffer.write(body)


def _account(number: str | None) -> OwnAccount:
    found = OwnAccount.objects.order_by("number")
    accounts = list(found.filter(number=number) if number else found)
    if len(accounts) != 1:
        raise CommandError("name one own account with --account" if accounts else "no such own account")
    return accounts[0]
