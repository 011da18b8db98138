"""Issue, list and revoke the keys of the read views."""

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from api.keys import issue, revoke
from api.models import READ_ALL, ApiKey
from core.cli import aware_datetime


class Command(BaseCommand):
    help = (
        "API keys, with which programs read balances (Authorization: Bearer KEY). A key is shown once, by "
        "create, and kept nowhere; it is known by its prefix, the middle of prihod_PREFIX_SECRET. "
        "Exit code: 0 done, 1 no such key, 2 unusable options."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        acts = parser.add_subparsers(dest="action", required=True, metavar="create|list|revoke")
        create = acts.add_parser(
            "create", help="print a new key to stdout, and nothing else there, so that it can be piped"
        )
        create.add_argument("--name", required=True, help="whose it is, for people")
        scopes = create.add_mutually_exclusive_group(required=True)
        scopes.add_argument("--read-all", action="store_true", help="it reads every organization")
        scopes.add_argument(
            "--organization",
            action="append",
            dest="inns",
            metavar="INN",
            help="it reads this one, which need not have been paid yet; may be given several times",
        )
        create.add_argument(
            "--expires",
            type=aware_datetime,
            metavar="WHEN",
            help="it is good until then; ISO 8601, in UTC unless it has an offset (default: until revoked)",
        )
        acts.add_parser(
            "list", help="all keys, newest first: prefix, state, scopes, times, name; tabs between"
        )
        revoked = acts.add_parser("revoke", help="at once and for ever; doing it twice does no harm")
        revoked.add_argument("prefix", help="as list shows it")

    def handle(self, *_: Any, action: str, **options: Any) -> None:
        if action == "create":
            self._create(options)
        elif action == "list":
            self._list()
        else:
            self._revoke(options["prefix"])

    def _create(self, options: dict[str, Any]) -> None:
        scopes = READ_ALL if options["read_all"] else " ".join(options["inns"])
        try:
            row, key = issue(options["name"], scopes, options["expires"])
        except ValidationError as wrong:
            raise CommandError(" ".join(wrong.messages), returncode=2) from None
        self.stdout.write(key)
        self.stderr.write(
            f"Key {row}; it is shown this once. Revoke it with: apikey revoke {row.prefix}", str
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
            self.stdout.write(f"{prefix} was revoked before.")
        else:
            raise CommandError("there is no key with this prefix")
