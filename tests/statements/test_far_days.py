"""Files name any days, such as 1C's empty date or the end of the calendar: no page and no action fails."""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from itertools import product

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from ingest.models import OperatorAction
from monitoring.prometheus import database_metrics
from statements import actions, buckets
from statements.buckets import Scope
from statements.importing import add_accounts, import_statement
from statements.matching import match
from statements.models import BankStatement, Bucket, OwnAccount, StatementLine
from statements.reading import read
from tests.admin_client import admin_url, superuser_client
from tests.factories import make_organizations, make_webhook, terms
from tests.reconciliation.settlement import apply_and_match, line, lines_in, money, operator, run, settle
from tests.statements.files import OWN, document, section, statement

pytestmark = pytest.mark.django_db
Kind = OperatorAction.Kind
FIRST, DAY, LAST = "01.01.0001", "16.03.2026", "31.12.9999"
R = "0033003303"
RECONCILIATION = "/admin/statements/statementline/reconciliation/"


def body(first: str, last: str, written: str, *documents: str) -> bytes:
    """Return a statement of 10 rubles for each of `documents`, that proves itself."""
    rubles = f"{10 * len(documents)}.00"
    sums = {"НачальныйОстаток": "0.00", "ВсегоПоступило": rubles, "КонечныйОстаток": rubles}
    days = {"ДатаНачала": first, "ДатаКонца": last}
    return statement(section(**days, **sums), *documents, **days, ДатаСоздания=written).encode("cp1251")


def files(combinations: Iterable[tuple[str, str, str]]) -> Iterator[bytes]:
    """Yield a statement for each combination of days; some periods end before they begin."""
    for number, (first, last, written) in enumerate(combinations):
        dates = {"Дата": first, "ДатаПоступило": last, "Номер": str(number)}
        yield body(first, last, written, document(**dates))


def open_pages() -> None:
    client = superuser_client("olga")
    periods = [f"?first={first}&last={last}" for first in ("0001-01-01", "") for last in ("9999-12-31", "")]
    urls = [f"{RECONCILIATION}{period}" for period in periods]
    for model in (BankStatement, StatementLine, OwnAccount):
        urls.append(admin_url(model, "changelist"))
        urls += [admin_url(model, "change", row.pk) for row in model.objects.all()]
    for url in (*urls, "/admin/"):
        assert client.get(url, follow=True).status_code == 200, url
    assert database_metrics()


DAYS = (FIRST, DAY, LAST)
PAIRS = [(first, last, DAYS[(a + b) % 3]) for (a, first), (b, last) in product(enumerate(DAYS), repeat=2)]


@pytest.mark.parametrize(
    "combinations", [PAIRS, pytest.param([*product(DAYS, repeat=3)], marks=pytest.mark.long)], ids=len
)
def test_any_days_are_imported_matched_shown_and_settled(combinations: list[tuple[str, str, str]]) -> None:
    """PAIRS has each pair of days in any two of the three fields."""
    OwnAccount.objects.create(number=OWN, since=date.min, until=date.max)
    make_organizations(R)
    for file in files(combinations):
        import_statement(file, "kl_to_1c.txt")
    match(is_full=True)

    for kind in (Kind.POST, Kind.EXCLUDE):
        lines = StatementLine.objects.filter(booked_on__gt=date.min)
        if actions.eligible(kind, lines).exists():
            run(actions.create(kind, lines, operator(), "all"))
        apply_and_match()
    open_pages()

    assert buckets.identity(Scope()).unexplained == 0


def test_document_of_1cs_empty_date_is_posted_and_merged_by_its_booking() -> None:
    OwnAccount.objects.create(number=OWN, since=date(2026, 1, 1))
    make_organizations(R)
    import_statement(body(DAY, DAY, "17.03.2026", line(R, "1", 10_00, Дата=FIRST)), "kl_to_1c.txt")
    match()

    assert settle(Kind.POST, lines_in(Bucket.MISSING_WEBHOOK)) == ["done"]
    at = datetime(2026, 3, 14, 9, tzinfo=UTC)
    make_webhook(terms(10_00, inn=R, document_number="1", document_date=at))
    apply_and_match()

    assert money() == {R: 10_00}


def test_last_day_of_a_webhook_is_compared_with_posted_lines() -> None:
    OwnAccount.objects.create(number=OWN, since=date(2026, 1, 1))
    make_organizations(R)
    import_statement(body(DAY, DAY, "17.03.2026", line(R, "1", 10_00)), "kl_to_1c.txt")
    match()
    settle(Kind.POST, lines_in(Bucket.MISSING_WEBHOOK))
    at = datetime(9999, 12, 30, tzinfo=UTC)
    make_webhook(terms(10_00, inn=R, document_number="1", document_date=at))
    apply_and_match()

    assert money() == {R: 20_00}


@pytest.mark.parametrize("days", [(FIRST, LAST), (LAST, FIRST), (LAST, LAST)])
def test_account_is_never_reconciled_from_an_implausible_day(days: tuple[str, str]) -> None:
    add_accounts(read(body(*days, FIRST)))

    assert OwnAccount.objects.get().since > date(2026, 1, 1)


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31", "31.12.2026"])
@pytest.mark.parametrize("command", ["reconcile", "export_1c"])
def test_commands_refuse_implausible_days(command: str, day: str) -> None:
    with pytest.raises(CommandError, match="--to"):
        call_command(command, "--from=2026-01-01", f"--to={day}")


@pytest.mark.parametrize("command", ["reconcile", "export_1c"])
def test_commands_refuse_a_period_that_ends_before_it_begins(command: str) -> None:
    with pytest.raises(CommandError, match="ends before it begins"):
        call_command(command, "--from=2026-03-02", "--to=2026-03-01")


def test_account_form_refuses_implausible_days() -> None:
    client = superuser_client("olga")
    fields = {"number": OWN, "bank": "", "since": "0001-01-01", "until": "9999-12-31"}

    page = client.post(admin_url(OwnAccount, "add"), fields)

    assert set(page.context["adminform"].errors) == {"since", "until"}
    assert not OwnAccount.objects.exists()
