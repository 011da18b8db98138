"""`manage.py reconcile`: what it matches and prints, and its exit codes."""

import json
import re
from io import StringIO
from unittest.mock import patch

import pytest
from django.core.management import CommandError, call_command

from statements.buckets import LINE_BUCKETS, WEBHOOK_BUCKETS
from statements.models import Match, OwnAccount
from tests.factories import make_webhook, post_payments
from tests.screenshots.sample_statement import ACCOUNT
from tests.statements.test_pages import MONDAY, TUESDAY, WEDNESDAY, account, import_day, movement, payment

pytestmark = pytest.mark.django_db
OTHER = "40702810900000009999"


def run(*arguments: str) -> tuple[int, str]:
    """Return the exit code, and the output with plain blanks."""
    out = StringIO()
    exit_code: str | int | None = 0
    try:
        call_command("reconcile", *arguments, stdout=out)
    except SystemExit as exc:
        exit_code = exc.code
    return int(exit_code or 0), out.getvalue().replace("\N{NO-BREAK SPACE}", " ")


def rows(text: str) -> dict[str, list[str]]:
    """Return the words of each line behind its first one."""
    return {words[0]: words[1:] for line in text.splitlines() if (words := line.split())}


@pytest.fixture(autouse=True)
def first_day_explained() -> None:
    account()
    make_webhook(notified := payment(10_00, "7"), status="applied")
    post_payments(notified)
    import_day(MONDAY, 0, movement("7"))
    import_day(TUESDAY, 10_00, movement("8", 2_05))


def test_command_matches_and_prints_each_bucket_and_the_identity() -> None:
    exit_code, text = run()

    found = rows(text)
    assert exit_code == 1
    assert set(found) >= {bucket.value for bucket in (*LINE_BUCKETS, *WEBHOOK_BUCKETS)}
    assert (found["matched"], text.count("missing_webhook")) == (["1", "10,00"], 2)
    assert re.search(r"missing_webhook +1 +2,05\n", text)
    assert re.search(r"ledger +10,00 − bank +12,05 = +−2,05\n  missing_webhook +−2,05$", text)
    assert Match.objects.get(live=True).line.number == "7"


def test_exit_code_is_0_if_every_line_of_the_period_is_settled() -> None:
    assert run("--to", str(MONDAY))[0] == 0
    exit_code, text = run("--from", str(TUESDAY))
    assert (exit_code, rows(text)["matched"][0]) == (1, "0")


def test_unexplained_difference_is_printed_and_exits_1() -> None:
    with patch("statements.buckets.ledger", return_value=10_03):
        exit_code, text = run("--to", str(MONDAY))

    assert exit_code == 1
    assert re.search(r"  UNEXPLAINED +0,03$", text)


def test_breaks_between_balances_are_printed_of_the_chosen_account() -> None:
    import_day(WEDNESDAY, 99_00)
    OwnAccount.objects.create(number=OTHER, since=MONDAY)

    text, of_other = run()[1], run("--account", OTHER)[1]

    assert re.search(rf"{ACCOUNT}: closing balance of {TUESDAY} +12,05, opening .* day +99,00$", text)
    assert ACCOUNT not in of_other
    with pytest.raises(CommandError, match="account 1 is not one of ours"):
        run("--account", "1")


def test_json_has_the_buckets_the_identity_the_covered_days_and_the_breaks() -> None:
    import_day(WEDNESDAY, 99_00)

    exit_code, text = run("--json", "--account", ACCOUNT, "--from", str(MONDAY), "--to", str(WEDNESDAY))

    found = json.loads(text)
    assert (exit_code, found["account"], found["from"], found["to"]) == (
        *(1, ACCOUNT, "2026-03-16", "2026-03-18"),
    )
    sums = [found[f"{name}_kopecks"] for name in ("ledger", "bank", "difference", "unexplained")]
    assert sums == [10_00, 12_05, -2_05, 0]
    assert found["terms_kopecks"]["missing_webhook"] == -2_05
    assert found["buckets"]["matched"] == {"count": 1, "kopecks": 10_00}
    assert found["covered"] == {ACCOUNT: [["2026-03-16", "2026-03-18"]]}
    assert found["breaks"] == [
        {"account": ACCOUNT, "day": "2026-03-17", "closing_kopecks": 12_05, "next_opening_kopecks": 99_00}
    ]


@pytest.mark.parametrize(("arguments", "is_full"), [([], False), (["--full"], True)])
def test_only_full_decides_every_line_again(arguments: list[str], is_full: bool) -> None:
    with patch("statements.management.commands.reconcile.match") as match:
        run(*arguments)

    match.assert_called_once_with(is_full=is_full)
