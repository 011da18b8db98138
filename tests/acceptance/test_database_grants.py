"""The whole stack as production's database users, restricted to the privileges in grants.sql."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.cookiejar import CookieJar
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPCookieProcessor, Request, build_opener
from uuid import uuid4

import pytest
from django.apps import apps
from django.db import connection
from pytest_django import DjangoDbBlocker

from devtools.run import SAMPLE_DELIVERY
from tests.harness.launcher_stack import LauncherStack
from tests.harness.servers import ROOT
from tests.markers import every_database

GRANTS = (ROOT / "deploy/mysql/grants.sql").read_text()
COLUMN_GRANTS = (ROOT / "deploy/mysql/column_grants.sql").read_text()
GRANT = re.compile(r"^GRANT (.+), CREATE ON (\w+) TO 'prihod'@'%';$", re.MULTILINE)
GRANTED = {table: set(rights.split(", ")) for rights, table in GRANT.findall(GRANTS)}
MIGRATION = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES, TRIGGER"
BY_SERVER = pytest.mark.skipif(
    not os.environ.get("DATABASE_URL", "").startswith("mysql:"), reason="SQLite has no users"
)


def test_grants_cover_exactly_the_tables() -> None:
    tables = {model._meta.db_table for model in apps.get_models(include_auto_created=True)}
    assert {*tables, "django_migrations"} == GRANTED.keys()
    assert re.findall(r"^REVOKE CREATE ON (\w+) ", GRANTS, re.MULTILINE) == list(GRANTED)


def test_ledger_tables_grant_select_and_insert_only() -> None:
    for table in ("ledger_payment", "ledger_balancelog"):
        assert GRANTED[table] == {"SELECT", "INSERT"}


@pytest.fixture(scope="module")
def restricted_stack(
    tmp_path_factory: pytest.TempPathFactory,
    servers: Callable[..., dict[str, str]],
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[LauncherStack]:
    """A stack whose processes are the user `prihod`, on a database migrated by `prihod_migration`."""
    resources = ExitStack()
    unreachable = "http://127.0.0.1:9/"  # alert checks run all the same
    settings = servers(resources, empty=True) | {"ALERT_WEBHOOK_URL": unreachable, "WEB_PROCESSES": "1"}
    stack = LauncherStack(tmp_path_factory.mktemp("restricted"), **settings)
    url = urlsplit(stack.environment["DATABASE_URL"])
    database = url.path.lstrip("/")
    users = {name: f"{name}_{uuid4().hex[:8]}" for name in ("prihod", "prihod_migration")}
    statements = [f"CREATE USER '{user}'@'%' IDENTIFIED BY 'pass'" for user in users.values()]
    statements += [f"GRANT {MIGRATION} ON {database}.* TO '{users['prihod_migration']}'@'%'"]

    def of_script(script: str) -> list[str]:
        lines = "\n".join(line for line in script.splitlines() if not line.startswith("--"))
        granted = lines.replace("'prihod'@", f"'{users['prihod']}'@").split(";")
        return [f"USE {database}", *(line for line in granted if line.strip())]

    def run(*statements_to_run: str) -> None:
        with django_db_blocker.unblock(), connection._nodb_cursor() as cursor:
            for statement in statements_to_run:
                cursor.execute(statement)

    def url_of(user: str) -> str:
        return url._replace(netloc=f"{users[user]}:pass@{url.hostname}").geturl()

    try:
        run(*statements, *of_script(GRANTS))
        stack.environment["DATABASE_URL"] = url_of("prihod_migration")
        migrated = stack.manage("migrate")
        assert migrated.returncode == 0, migrated.stderr
        run(*of_script(COLUMN_GRANTS))
        stack.environment["DATABASE_URL"] = url_of("prihod")
        yield stack
    finally:
        stack.clean_up()
        run(*(f"DROP USER '{user}'@'%'" for user in users.values()))
        resources.close()


@every_database
@BY_SERVER
def test_stack_works_with_the_granted_privileges(restricted_stack: LauncherStack) -> None:
    sample = json.loads(SAMPLE_DELIVERY)
    with restricted_stack as stack:
        assert stack.deliver(sample) == (200, {"status": "success"})
        stack.wait_for_balance(sample["payer_inn"], 145000)
        assert stack.deliver(sample) == (200, {"status": "already processed"})
        assert stack.deliver({**sample, "amount": 1})[1] == {"status": "already processed"}
        assert stack.deliver({**sample, "amount": -1})[0] == 400
        simulated = stack.manage("simulate_bank", "--url", stack.url, "--count", "50", "--invalid", "0.1")
        assert simulated.returncode == 0, simulated.stderr
        done = stack.manage("shell", "-v0", "-c", EVERY_HOUR + SET_PASSWORD + COMMANDS)
        assert done.stdout.endswith("all done\n"), done.stderr
        log_in_and_open_every_page(stack)
        assert stack.manage("axes_reset_username", "admin").returncode == 0
        assert "denied" not in stack.output()


EVERY_HOUR = (
    "from worker.celery import app; app.loader.import_default_modules();"
    "[app.tasks[entry['task']]() for entry in app.conf.beat_schedule.values()];"
)
SET_PASSWORD = (
    "from django.contrib.auth.models import User; admin = User.objects.get(is_superuser=True);"
    "admin.set_password('right'); admin.save();"
)
COMMANDS = (
    "from django.core.management import call_command;"
    "call_command('verify_ledger');"
    "call_command('replay', '--failed');"
    "call_command('addstatictoken', 'admin');"
    "call_command('clearsessions');"
    "print('all done')"
)


def log_in_and_open_every_page(stack: LauncherStack) -> None:
    jar = CookieJar()
    opener = build_opener(HTTPCookieProcessor(jar))

    def post(password: str) -> str:
        opener.open(f"{stack.url}/admin/login/")
        token = next(cookie.value for cookie in jar if cookie.name == "csrftoken")
        form = {"username": "admin", "password": password, "csrfmiddlewaretoken": token, "next": "/admin/"}
        answer = opener.open(Request(f"{stack.url}/admin/login/", urlencode(form).encode()))
        answer.read()  # until its end the process may refuse another form
        return str(answer.url)

    assert "login" in post("wrong")
    assert post("right").endswith("/admin/")
    index = opener.open(f"{stack.url}/admin/").read().decode()
    pages = set(re.findall(r'href="(/admin/\w+/\w+/)"', index))
    assert len(pages) > 10
    for page in pages:
        assert opener.open(stack.url + page).status == 200


FORBIDDEN = [
    "UPDATE ledger_payment SET amount_kopecks = 1",
    "DELETE FROM ledger_balancelog",
    "DELETE FROM ledger_organization",
    "DELETE FROM ingest_webhook",
    "TRUNCATE ledger_payment",
    "DROP TABLE ledger_payment",
    "CREATE TABLE mine (id INT)",
    "DROP TRIGGER ledger_payment_no_update",
    "UPDATE django_migrations SET name = 'x'",
    "UPDATE ledger_organization SET inn = '7707083893'",
    *(
        f"UPDATE ingest_webhook SET {column} = {column}"
        for column in (
            "operation_id",
            "payer_inn",
            "amount_kopecks",
            "document_number",
            "document_date",
            "received_at",
            "source",
            "client_ip",
        )
    ),
    "UPDATE ingest_operatoractionitem SET webhook_id = 1",
    "DROP TRIGGER ledger_organization_no_update",
]
TRY_EACH = """
from django.db import DatabaseError, connection
for statement in FORBIDDEN:
    try:
        connection.cursor().execute(statement)
    except DatabaseError as refused:
        assert refused.args[0] in {1142, 1143, 1370}, refused  # table, column or trigger: denied
    else:
        raise SystemExit(f"was not refused: {statement}")
"""


@BY_SERVER
def test_forbidden_statements_are_denied(restricted_stack: LauncherStack) -> None:
    statements = f"FORBIDDEN = {FORBIDDEN!r}{TRY_EACH}"
    tried = restricted_stack.manage("shell", "-v0", "-c", statements)
    assert tried.returncode == 0, tried.stdout + tried.stderr
