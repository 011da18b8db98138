"""docs/runbook.md: names in it exist, links to it resolve, and some entries are executed."""

import json
import re
import shlex
from collections.abc import Callable

import pytest
from django.core.management import get_commands, load_command_class
from django.urls import resolve

from monitoring import problems
from tests.acceptance import production as stage
from tests.acceptance.poison_settings import POISON
from tests.factories import IVANOV, ROMASHKA, VASILEK
from tests.harness.launcher_stack import LauncherStack
from tests.harness.servers import ROOT
from tests.test_deployment import SERVICES
from tests.test_prometheus import RULES, exposed  # noqa: F401 the second is a fixture

RUNBOOK = ROOT / "docs/runbook.md"
PAGE = " ".join(RUNBOOK.read_text().split())
NAMES = sorted(set(re.findall(r"`([^`]+)`", PAGE)))
COMMANDS = [name for name in NAMES if name.startswith("manage.py ")]
PACKAGES = [
    "core",
    "api",
    "ledger",
    "ingest",
    "worker",
    "monitoring",
    "web",
    "backoffice",
    "devtools",
    "config",
    "statements",
]
OURS = " ".join(
    " ".join(path.read_text().split())
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*"))
    if path.suffix in {".py", ".html"}
)
VARIABLES = set(re.findall(r"^# ([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))


def anchors(page: str) -> list[str]:
    """Return the anchors that GitHub creates for the headings of a page below docs/."""
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs" / page).read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_every_alert_and_problem_has_an_entry() -> None:
    links = [rule["annotations"]["runbook_url"] for rule in RULES]
    links += [problems.runbook_entry(cause) for cause in documented_causes()]
    assert {url.partition("#")[0] for url in links} == {"docs/runbook.md"}
    assert {url.partition("#")[2] for url in links} <= set(anchors("runbook.md"))
    assert {rule["alert"] for rule in RULES} == {name for name in NAMES if re.fullmatch(r"Prihod\w+", name)}


def documented_causes() -> set[str]:
    """Return the causes in docs/monitoring.md."""
    table = (ROOT / "docs/monitoring.md").read_text().partition("| cause | condition |")[2]
    causes = {
        cause
        for row in table.partition("\n\n")[0].splitlines()
        for cause in re.findall(r"`([^`]+)`", row.split("|")[1] if "|" in row else "")
    }
    assert causes == problems._RUNBOOK_ENTRIES.keys()
    return causes


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", PAGE))))
def test_every_link_resolves(link: str) -> None:
    path, _, anchor = link.partition("#")
    assert (RUNBOOK.parent / path).exists()
    assert not anchor or anchor in anchors(path or "runbook.md")


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_accepts_its_options(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    command = load_command_class(get_commands()[name], name)
    command.create_parser("manage.py", name).parse_args(arguments)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("/")])
def test_every_path_resolves_to_a_view(name: str) -> None:
    assert resolve(name.replace("<id>", "ccf0a86d-041b-4991-bcf7-e2352f7b8a4a"))


def test_every_metric_is_exposed(exposed: set[str]) -> None:  # noqa: F811 the fixture
    metrics = {name.partition("{")[0] for name in NAMES if name.startswith("prihod_")}
    assert metrics
    assert metrics <= exposed | {metric.rpartition("_")[0] for metric in exposed}  # histogram series


def test_every_other_name_exists_in_the_code() -> None:
    """Log events, causes, variables and files are ours; foreign names are listed here."""
    others = {
        name
        for name in NAMES
        if f'"{name}' not in OURS  # a log event, a cause, a column
        and name.partition("=")[0] not in VARIABLES
        and not name.startswith(("/", "Prihod", "prihod_", "manage.py "))
        and not (ROOT / name).exists()
    }
    compose = {name for name in others if name.startswith("docker compose ")}
    assert {"web", "worker", "beat"} <= SERVICES.keys()
    assert others - compose == {
        *("!!", ".venv/bin/python manage.py", "curl -i http://127.0.0.1:8000/healthz"),
        *(
            "KILL",
            "SHOW FULL PROCESSLIST",
            "OPTIMIZE TABLE",
            "max_connections",
            "limit_req",
            "event_scheduler",
        ),
        "SHOW GLOBAL STATUS LIKE 'wsrep_flow_control_sent'",
        "Out of disk space",
        *(
            "systemctl start mariadb",
            "systemctl start mysql",
            "START GROUP_REPLICATION",
            "STOP GROUP_REPLICATION",
        ),
        *("group_replication_start_on_boot", "SET GLOBAL group_replication_bootstrap_group = 1"),
        *("SET GLOBAL wsrep_provider_options = 'pc.bootstrap = true'", "SELECT @@gtid_executed"),
        *("mariadbd --wsrep-recover", "safe_to_bootstrap: 1", "grastate.dat", "galera_new_cluster"),
        (
            "SELECT trx_mysql_thread_id, trx_started FROM information_schema.innodb_trx"
            " WHERE trx_state = 'RUNNING' AND trx_rows_locked > 0 ORDER BY trx_started"
        ),
    }


@pytest.mark.parametrize("words", sorted(set(re.findall(r"(?<!\*)\*([A-Za-z][^*]+)\*(?!\*)", PAGE))))
def test_every_quoted_page_text_exists(words: str) -> None:
    assert words.lower() in OURS.lower()


# Executed entries


@pytest.fixture(scope="module")
def stack(production: Callable[..., LauncherStack]) -> LauncherStack:
    stack = production(STALLED_AFTER_SECONDS="1")
    assert stage.deliver(stack, stage.webhook())[0] == 200
    stack.wait_for_balance(ROMASHKA, 145000)
    return stack


def command(beginning: str) -> list[str]:
    """Return the arguments of a command exactly as the runbook has it."""
    (line,) = {line for line in COMMANDS if line.startswith(f"manage.py {beginning}")}
    return shlex.split(line)[1:]


def doctor_leads_to(stack: LauncherStack, entry: str) -> bool:
    return f"(docs/runbook.md#{entry})" in stack.manage("doctor").stdout


def test_failed_webhooks_are_replayed_after_the_fix(stack: LauncherStack) -> None:
    poison = stage.webhook(payer_inn=VASILEK, document_number=f"{POISON}1")
    assert stage.deliver(stack, poison)[0] == 200
    stack.wait_until(lambda: stack.json(f"/api/operations/{poison['operation_id']}/")["status"] == "failed")
    assert doctor_leads_to(stack, "failed-webhooks")

    (stack.data_dir / "repaired").touch()
    assert "1 replayed" in stack.manage(*command("replay --failed --reason")).stdout

    stack.wait_for_balance(VASILEK, 145000)
    assert not doctor_leads_to(stack, "failed-webhooks")


def test_stalled_webhooks_are_applied_once_workers_run(stack: LauncherStack) -> None:
    with stack.paused_workers():
        assert stage.deliver(stack, stage.webhook(payer_inn=IVANOV))[0] == 200
        stack.wait_until(lambda: doctor_leads_to(stack, "processing-stalled"))

    stack.wait_for_balance(IVANOV, 145000)
    assert not doctor_leads_to(stack, "processing-stalled")


def test_wrong_balance_is_detected_and_corrected(stack: LauncherStack) -> None:
    with stack.paused_workers():
        wrong = "SET balance_kopecks = balance_kopecks + 100"
        sql(stack, f"UPDATE ledger_organization {wrong} WHERE inn = '{ROMASHKA}'")
        assert stack.manage("verify_ledger").returncode == 1
        assert doctor_leads_to(stack, "drift")
        drift = json.loads(stack.manage(*command("verify_ledger --json")).stdout)["drift"]
        right, inn = drift["expected"], drift["inn"]
        sql(stack, f"UPDATE ledger_organization SET balance_kopecks = {right} WHERE inn = '{inn}'")

    assert "All is right" in stack.manage("verify_ledger").stdout
    assert not doctor_leads_to(stack, "drift")


def sql(stack: LauncherStack, statement: str) -> None:
    code = f'from django.db import connection; connection.cursor().execute("{statement}")'
    done = stack.manage("shell", "-v0", "-c", code)
    assert done.returncode == 0, done.stderr
