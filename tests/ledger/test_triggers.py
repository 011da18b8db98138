"""Triggers refuse to change or delete posted rows."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import import_module

import pytest
from django.core.management import CommandError
from django.db import DatabaseError, connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.state import ProjectState
from django.db.models import Case, F, Value, When
from django.db.models.functions import Concat

from ingest.models import Webhook
from ledger import triggers
from ledger.models import BalanceLog, Organization, Payment
from tests.corruption import raw_delete
from tests.factories import IVANOV, ROMASHKA, VASILEK, make_webhook, post_payments, terms

sqlite_only = pytest.mark.skipif(connection.vendor != "sqlite", reason="about its REPLACE")
mysql_only = pytest.mark.skipif(connection.vendor != "mysql", reason="about the binary log of MySQL")


@pytest.fixture
def payment(transactional_db: None) -> Payment:
    post_payments(terms(100_00), terms(20_50))
    return Payment.objects.order_by("id")[0]


def execute(statement: str, on: BaseDatabaseWrapper = connection) -> None:
    with on.cursor() as cursor:
        cursor.execute(statement)


def rows() -> list[object]:
    return [*Payment.objects.order_by("id").values(), *BalanceLog.objects.order_by("id").values()]


def save(row: Payment | BalanceLog) -> None:
    row.amount_kopecks += 1
    row.save()


def touch(row: Payment | BalanceLog) -> None:
    row.save()  # an UPDATE without a change


FORBIDDEN: dict[str, Callable[[], object]] = {
    "UPDATE payment": lambda: execute("UPDATE ledger_payment SET amount_kopecks = amount_kopecks + 1"),
    "UPDATE entry": lambda: execute("UPDATE ledger_balancelog SET balance_after_kopecks = 0"),
    "DELETE payment": lambda: execute("DELETE FROM ledger_payment"),
    "DELETE entry": lambda: execute("DELETE FROM ledger_balancelog"),
    "queryset.update of payments": lambda: Payment.objects.update(document_number="PAY-329"),
    "queryset.update of entries": lambda: BalanceLog.objects.update(seq=F("seq") + 10),
    "queryset.delete of entries": lambda: BalanceLog.objects.all().delete(),
    "raw DELETE of payments": lambda: raw_delete(Payment.objects.all()),
    "payment.save": lambda: save(Payment.objects.latest("id")),
    "entry.save": lambda: save(BalanceLog.objects.latest("id")),
    "entry.save without a change": lambda: touch(BalanceLog.objects.latest("id")),
    "entry.delete": lambda: BalanceLog.objects.latest("id").delete(),
    "bulk_update of entries": lambda: BalanceLog.objects.bulk_update(
        [BalanceLog(pk=BalanceLog.objects.latest("id").pk, amount_kopecks=1)], ["amount_kopecks"]
    ),
    "REPLACE of a payment": lambda: execute(
        "REPLACE INTO ledger_payment (id, operation_id, organization_id, amount_kopecks, document_number,"
        " document_date, created_at) SELECT id, operation_id, organization_id, 1, document_number,"
        " document_date, created_at FROM ledger_payment"
    ),
    "REPLACE of an entry": lambda: execute(
        "REPLACE INTO ledger_balancelog (organization_id, seq, payment_id, amount_kopecks,"
        " balance_after_kopecks, created_at) SELECT organization_id, seq, payment_id, 1,"
        " balance_after_kopecks, created_at FROM ledger_balancelog"
    ),
}


def test_posted_rows_cannot_be_changed_or_deleted(payment: Payment, subtests: pytest.Subtests) -> None:
    before = rows()
    for name, action in FORBIDDEN.items():
        with subtests.test(name):
            with connection.constraint_checks_disabled(), pytest.raises(DatabaseError, match="append-only"):
                action()
            assert rows() == before


FIXED: dict[str, Callable[[], object]] = {
    "INN": lambda: Organization.objects.filter(inn=ROMASHKA).update(inn=IVANOV),
    "INN with a blank behind": lambda: Organization.objects.update(inn=Concat("inn", Value(" "))),
    "kind": lambda: Organization.objects.update(kind="suspense"),
    "opening": lambda: Organization.objects.update(opened_at=datetime(2020, 1, 1, tzinfo=UTC)),
    "key": lambda: Organization.objects.update(id=F("id") + 1000),
    "no INN": lambda: execute("UPDATE ledger_organization SET inn = NULL"),
    "removal": lambda: raw_delete(Organization.objects.all()),
    "two that change their INNs": lambda: Organization.objects.update(
        inn=Case(When(inn=ROMASHKA, then=Value(VASILEK)), default=Value(ROMASHKA))
    ),
}


def test_identity_of_an_organization_cannot_be_changed(payment: Payment, subtests: pytest.Subtests) -> None:
    post_payments(terms(inn=VASILEK))
    before = list(Organization.objects.order_by("id").values())
    for name, action in FIXED.items():
        with subtests.test(name):
            with connection.constraint_checks_disabled(), pytest.raises(DatabaseError, match="append-only"):
                action()
            assert list(Organization.objects.order_by("id").values()) == before

    Organization.objects.update(balance_kopecks=F("balance_kopecks") + 1, last_seq=F("last_seq") + 1)


def test_webhook_cannot_be_deleted(transactional_db: None) -> None:
    make_webhook()
    with pytest.raises(DatabaseError, match="append-only"):
        raw_delete(Webhook.objects.all())
    assert Webhook.objects.exists()


def test_upsert_cannot_change_a_payment(payment: Payment) -> None:
    before = rows()
    payment.amount_kopecks += 1
    unique = [] if connection.vendor == "mysql" else ["operation_id"]
    with pytest.raises(DatabaseError, match="append-only"):
        Payment.objects.bulk_create(
            [payment], update_conflicts=True, update_fields=["amount_kopecks"], unique_fields=unique
        )
    assert rows() == before


def test_refused_change_rolls_back_its_transaction(payment: Payment) -> None:
    before = rows()

    @transaction.atomic
    def post_and_change() -> None:
        post_payments(terms(1))
        Payment.objects.update(amount_kopecks=1)

    with pytest.raises(DatabaseError, match="append-only"):
        post_and_change()
    assert rows() == before


@sqlite_only
@pytest.mark.parametrize(
    ("table", "changed"),
    [
        ("ledger_payment", {"id": 99}),
        ("ledger_payment", {"operation_id": "'00000000000000000000000000000001'"}),
        ("ledger_balancelog", {"payment_id": 99, "seq": 99}),
        ("ledger_balancelog", {"id": 99, "seq": 99}),
        ("ledger_balancelog", {"id": 99, "payment_id": 99}),
    ],
)
def test_sqlite_replace_by_any_key_is_refused(
    payment: Payment, table: str, changed: dict[str, object]
) -> None:
    """REPLACE with all but one of the keys changed, from a session that checks no foreign keys."""
    before = rows()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table} LIMIT 1")
        names = [column[0] for column in cursor.description]
    values = ", ".join(str(changed.get(name, name)) for name in names)
    with connection.constraint_checks_disabled(), pytest.raises(DatabaseError, match="append-only"):
        execute(f"INSERT OR REPLACE INTO {table} SELECT {values} FROM {table} LIMIT 1")
    assert rows() == before


@pytest.mark.django_db(transaction=True)
def test_create_adds_missing_triggers() -> None:
    assert triggers.missing(connection) == []
    triggers.drop(connection)
    names = triggers.missing(connection)
    assert {"ledger_payment_no_update", "ledger_balancelog_no_delete"} < set(names)

    triggers.create(connection)
    execute(f"DROP TRIGGER {names[1]}")
    assert triggers.missing(connection) == [names[1]]
    triggers.create(connection)

    assert triggers.missing(connection) == []


@pytest.fixture
def clerk(transactional_db: None) -> Iterator[BaseDatabaseWrapper]:
    """Open a session of a user without SUPER on a server whose binary log requires it for triggers."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@log_bin, @@log_bin_trust_function_creators")
        binary_log, trust = cursor.fetchone()
    if not binary_log:
        pytest.skip("without a binary log every user may create triggers")
    execute("SET GLOBAL log_bin_trust_function_creators = 0")
    execute("CREATE USER clerk@localhost")
    execute(f"GRANT ALL ON {connection.settings_dict['NAME']}.* TO clerk@localhost")
    session = connection.copy()
    session.settings_dict = connection.settings_dict | {"USER": "clerk", "PASSWORD": ""}
    triggers.drop(connection)
    try:
        yield session
    finally:
        session.close()
        execute("DROP USER clerk@localhost")
        execute(f"SET GLOBAL log_bin_trust_function_creators = {trust}")
        triggers.create(connection)


@mysql_only
def test_migrate_names_the_remedy_if_the_binary_log_forbids_triggers(clerk: BaseDatabaseWrapper) -> None:
    """Raise CommandError, which manage.py prints in one line without a traceback."""
    editor = clerk.schema_editor(atomic=False)
    operation = import_module("ledger.migrations.0001_initial").Migration.operations[-1]
    with pytest.raises(CommandError, match="log_bin_trust_function_creators = 1"):
        operation.database_forwards("ledger", editor, ProjectState(), ProjectState())
