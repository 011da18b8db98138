"""Issue, list and revoke API keys."""

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from api.keys import issue, revoke
from api.models import READ_ALL, WRITE_STATEMENTS, ApiKey
from core.cli import aware_datetime


class Command(BaseCommand):
    help = (
        "API keys, with which programs read balances and upload bank statements (Authorization: Bearer KEY). "
        "create prints a key once; "
        "only its hash is stored. A key is identified by its prefix, the middle of prihod_PREFIX_SECRET. "
        "Exit code: 0 done, 1 no such key, 2 invalid options."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        subcommands = parser.add_subparsers(dest="subcommand", required=True, metavar="create|list|revoke")
        create = subcommands.add_parser(
            "create", help="print a new key, and nothing else, to stdout, so that it can be piped"
        )
        create.add_argument("--name", required=True, help="the program or person that uses the key")
        scopes = create.add_mutually_exclusive_group()
        scopes.add_argument("--read-all", action="store_true", help="allow reading every organization")
        scopes.add_argument(
            "--organization",
            action="append",
            dest="inns",
            metavar="INN",
            help="allow reading this organization, which need not exist yet; repeatable",
        )
        create.add_argument(
            "--write-bank-statements", action="store_true", help="allow uploading bank statements"
        )
        create.add_argument(
            "--expires",
            type=aware_datetime,
            metavar="TIME",
            help="expiry in ISO 8601, in UTC unless it has an offset (default: valid until revoked)",
        )
        subcommands.add_parser(
            "list", help="list all keys, newest first: prefix, state, scopes, times, name; tab-separated"
        )
        revoked = subcommands.add_parser(
            "revoke", help="revoke a key immediately and permanently; idempotent"
        )
        revoked.add_argument("prefix", help="the key's prefix, as in the list")

    def handle(self, *_: Any, subcommand: str, **options: Any) -> None:
        if subcommand == "create":
            self._create(options)
        elif subcommand == "list":
            self._list()
        else:
            self._revoke(options["prefix"])

    def _create(self, options: dict[str, Any]) -> None:
        scopes = [READ_ALL] if options["read_all"] else list(options["inns"] or [])
        scopes += [WRITE_STATEMENTS] if options["write_bank_statements"] else []
        try:
            row, key = issue(options["name"], " ".join(scopes), options["expires"])
        except ValidationError as exc:
            raise CommandError(" ".join(exc.messages), returncode=2) from None
        self.stdout.write(key)
        self.stderr.write(
            f"Key {row}; it is not shown again. Revoke it with: apikey revoke {row.prefix}", str
        )

    def _list(self) -> None:
        now = timezone.now()
        for row in ApiKey.objects.order_by("-id"):
            times = [f"created {row.created_at:%Y-%m-%d}"]
            times += [f"expires {row.expires_at:%Y-%m-%d %H:%M}"] if row.expires_at else []
            times += [f"used {row.last_used_at:%Y-%m-%d %H:%M}" if row.last_used_at else "never used"]
            self.stdout.write("\t".join([row.prefix, row.state(now), row.scopes, ", ".join(times), row.name]))

    def _revoke(self, prefix: str) -> None:
        if revoke(prefix):
            self.stdout.write(f"Revoked {prefix}.")
        elif ApiKey.objects.filter(prefix=prefix).exists():
            self.stdout.write(f"{prefix} was already revoked.")
        else:
            raise CommandError("there is no key with this prefix")
