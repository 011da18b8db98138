"""Deliver webhooks as a bank does, and verify that the balances are exact."""

import argparse
import dataclasses
import json
import re
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from core.delivery_auth import decode_secret
from devtools import simulator

DIFFERENCES_SHOWN_MAX = 20


class Command(BaseCommand):
    help = (
        "A simulated bank: deliver webhooks to a running server over HTTP, wait until they are posted, and "
        "compare every balance and history entry with what was delivered. Organizations and operations are "
        "new in each run, so the server need not be empty, and the database is never accessed directly. "
        "Exit code: 0 exact, 1 any difference or no server, 2 invalid options."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        def option(name: str, kind: Callable[[str], object], default: object, text: str) -> None:
            parser.add_argument(name, type=kind, default=default, help=f"{text} (default: {default})")

        share = _number(float, 0, 1)
        option("--url", _url, settings.URL, "the server")
        option("--count", _number(int, 1, 10_000_000), 1000, "number of operations")
        option("--organizations", _number(int, 1, 1_000_000), 10, "number of paying organizations")
        option("--rate", _number(float, 0, 1_000_000), 0.0, "deliveries per second; 0: unlimited")
        option("--duplicates", share, 0.0, "share of operations delivered again, some in another spelling")
        option("--conflicts", share, 0.0, "share of operations delivered again with another amount or INN")
        option("--invalid", share, 0.0, "additional deliveries that must be answered 400, as a share")
        option("--connections", _number(int, 1, 256), 8, "parallel keep-alive connections")
        option("--timeout", _number(float, 0, 86_400), 60.0, "seconds to wait until everything is posted")
        parser.add_argument(
            "--seed", type=_number(int, 0, 2**64), help="repeat the run of this seed (default: random)"
        )
        about = (
            "whsec_…, to sign the deliveries (default: the first of WEBHOOK_SECRETS, which ps doesn't show)"
        )
        parser.add_argument("--secret", type=_key, help=about)
        parser.add_argument(
            "--api-key",
            type=_api_key,
            metavar="KEY",
            help="of all organizations, if the server requires one; - reads it from stdin, so that ps doesn't"
            " show it",
        )
        parser.add_argument("--json", action="store_true", help="print the report as one JSON object")

    def handle(self, *_: Any, **options: Any) -> None:
        plan = _plan(options)
        self.stderr.write(f"Seed {plan.seed}: {plan.count} operations to {plan.url}", str)
        try:
            with _progress_bar() as on_progress:
                report = simulator.run(plan, on_progress)
        except simulator.SimulationError as exc:
            self.stderr.write(str(exc))
            sys.exit(1)
        except KeyboardInterrupt:
            self.stderr.write("Interrupted; nothing was compared.")
            sys.exit(130)
        if options["json"]:
            self.stdout.write(json.dumps(dataclasses.asdict(report)))
        else:
            _show(Console(file=cast(TextIO, self.stdout), no_color=options["no_color"]), report)
        if not report.exact:
            sys.exit(1)


def _plan(options: dict[str, Any]) -> simulator.Plan:
    given = {"seed": options["seed"]} if options["seed"] is not None else {}
    return simulator.Plan(
        url=options["url"],
        count=options["count"],
        organizations=options["organizations"],
        rate=options["rate"],
        duplicates_share=options["duplicates"],
        conflicts_share=options["conflicts"],
        invalid_share=options["invalid"],
        connections=options["connections"],
        timeout_seconds=options["timeout"],
        signing_key=options["secret"] or next(iter(settings.BANK_AUTH.secrets), None),
        api_key=options["api_key"] or "",
        **given,
    )


def _api_key(text: str) -> str:
    key = sys.stdin.readline().strip() if text == "-" else text
    if not re.fullmatch("[!-~]+", key):
        raise argparse.ArgumentTypeError("a key is one word of ASCII characters")
    return key


def _url(text: str) -> str:
    parts = urllib.parse.urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL like http://127.0.0.1:8000")
    return text.rstrip("/")


def _key(secret: str) -> bytes:
    try:
        return decode_secret(secret)
    except ValueError as exc:  # argparse's own message would quote the secret
        raise argparse.ArgumentTypeError(str(exc)) from None


def _number(kind: type[int] | type[float], least: int, most: int) -> Callable[[str], float]:
    def number(text: str) -> float:
        if not least <= (value := kind(text)) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not between {least} and {most}")
        return value

    return number


@contextmanager
def _progress_bar() -> Iterator[simulator.ProgressCallback]:
    """Show one bar for the current phase, on terminals only."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda phase, done, total: progress.update(task, description=phase, completed=done, total=total)


def _show(console: Console, report: simulator.Report) -> None:
    table = Table(title=f"Seed {report.seed}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for word, times in sorted(report.responses.items(), reverse=True):
        table.add_row(word, f"{times}")
    table.add_row("retries", f"{report.retries}")
    table.add_row("latency p50, p99", f"{report.p50_ms} ms, {report.p99_ms} ms")
    table.add_row("achieved rate", f"{report.rate} /s")
    console.print(table)
    for difference in report.differences[:DIFFERENCES_SHOWN_MAX]:
        console.print(difference, style="red", markup=False, highlight=False)
    if len(report.differences) > DIFFERENCES_SHOWN_MAX:
        console.print(f"{len(report.differences)} differences; --json shows all.", highlight=False)
    exact = f"{report.organizations_exact} of {report.organizations} organizations exact"
    console.print(exact, style="green" if report.exact else "red", highlight=False)
