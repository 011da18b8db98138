"""docs/runbook.md: what it names exists, what leads to it arrives, and some of its entries are played."""

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
from tests.factories import ROMASHKA, VASILEK
from tests.harness.launcher_stack import LauncherStack, wait_until
from tests.harness.servers import ROOT
from tests.test_deployment import SERVICES
from tests.test_prometheus import RULES, exposed  # noqa: F401 the second is a fixture

RUNBOOK = ROOT / "docs/runbook.md"
PAGE = " ".join(RUNBOOK.read_text().split())
NAMES = sorted(set(re.findall(r"`([^`]+)`", PAGE)))
COMMANDS = [name for name in NAMES if name.startswith("manage.py ")]
ROOMS = ("api", "config", "monitoring", "worker", "ingest", "ledger")
OURS = " ".join(
    " ".join(path.read_text().split())
    for room in ROOMS
    for path in sorted((ROOT / room).rglob("*"))
    if path.suffix in {".py", ".html"}
)
VARIABLES = set(re.findall(r"^# ([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))


def anchors(page: str) -> list[str]:
    """Of the headings of a page below docs/, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs" / page).read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_every_alert_and_every_trouble_has_an_entry() -> None:
    led = [rule["annotations"]["runbook_url"] for rule in RULES]
    led += [problems.runbook_entry(cause) for cause in told_causes()]
    assert {url.partition("#")[0] for url in led} == {"docs/runbook.md"}
    assert {url.partition("#")[2] for url in led} <= set(anchors("runbook.md"))
    assert {rule["alert"] for rule in RULES} == {name for name in NAMES if re.fullmatch(r"Prihod\w+", name)}


def told_causes() -> set[str]:
    """By docs/monitoring.md."""
    table = (ROOT / "docs/monitoring.md").read_text().partition("| cause | is told when |")[2]
    causes = {
        cause
        for row in table.partition("\n\n")[0].splitlines()
        for cause in re.findall(r"`([^`]+)`", row.split("|")[1] if "|" in row else "")
    }
    assert causes == problems._RUNBOOK_ENTRIES.keys()
    return causes


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", PAGE))))
def test_every_link_arrives(link: str) -> None:
    path, _, anchor = link.partition("#")
    assert (RUNBOOK.parent / path).exists()
    assert not anchor or anchor in anchors(path or "runbook.md")


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_takes_these_options(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    command = load_command_class(get_commands()[name], name)
    command.create_parser("manage.py", name).parse_args(arguments)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("/")])
def test_every_address_answers_to_somebody(name: str) -> None:
    assert resolve(name.replace("<id>", "ccf0a86d-041b-4991-bcf7-e2352f7b8a4a"))


def test_every_metric_is_exposed(exposed: set[str]) -> None:  # noqa: F811 the fixture
    metrics = {name.partition("{")[0] for name in NAMES if name.startswith("prihod_")}
    assert metrics
    assert metrics <= exposed | {metric.rpartition("_")[0] for metric in exposed}  # a histogram's parts


def test_every_other_name_is_one_of_ours() -> None:
    """Log lines, causes, variables, files, services; what is left is other people's."""
    others = {
        name
        for name in NAMES
        if f'"{name}' not in OURS  # a log line, a cause, a column
        and name not in VARIABLES
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
        "Out of disk space",
        (
            "SELECT trx_mysql_thread_id, trx_started FROM information_schema.innodb_trx"
            " WHERE trx_state = 'RUNNING' AND trx_rows_locked > 0 ORDER BY trx_started"
        ),
    }


@pytest.mark.parametrize("words", sorted(set(re.findall(r"(?<!\*)\*([A-Za-z][^*]+)\*(?!\*)", PAGE))))
def test_every_word_of_a_page_is_said_there(words: str) -> None:
    assert words.lower() in OURS.lower()


# Some entries, played


@pytest.fixture
def stack(production: Callable[..., LauncherStack]) -> LauncherStack:
    stack = production(STALLED_AFTER_SECONDS="1")
    assert stage.deliver(stack, stage.webhook())[0] == 200
    stack.wait_for_balance(ROMASHKA, 145000)
    return stack


def command(beginning: str) -> list[str]:
    """The arguments of a command as the page has it."""
    (line,) = {line for line in COMMANDS if line.startswith(f"manage.py {beginning}")}
    return shlex.split(line)[1:]


def doctor_leads_to(stack: LauncherStack, entry: str) -> bool:
    return f"(docs/runbook.md#{entry})" in stack.manage("doctor").stdout


def test_failed_webhooks_are_replayed_once_their_cause_is_repaired(stack: LauncherStack) -> None:
    poison = stage.webhook(payer_inn=VASILEK, document_number=f"{POISON}1")
    assert stage.deliver(stack, poison)[0] == 200
    wait_until(lambda: stack.json(f"/api/operations/{poison['operation_id']}/")["status"] == "failed", stack)
    assert doctor_leads_to(stack, "failed-webhooks")

    (stack.data_dir / "repaired").touch()
    assert "1 replayed" in stack.manage(*command("replay --failed --reason")).stdout

    stack.wait_for_balance(VASILEK, 145000)
    assert not doctor_leads_to(stack, "failed-webhooks")


def test_what_was_stuck_moves_as_soon_as_somebody_works(stack: LauncherStack) -> None:
    with stack.paused_workers():
        assert stage.deliver(stack, stage.webhook(payer_inn=VASILEK))[0] == 200
        wait_until(lambda: doctor_leads_to(stack, "processing-stalled"), stack)

    stack.wait_for_balance(VASILEK, 145000)
    assert not doctor_leads_to(stack, "processing-stalled")


def test_a_wrong_balance_is_found_named_and_put_right(stack: LauncherStack) -> None:
    with stack.paused_workers():
        sql(stack, "UPDATE ledger_organization SET balance_kopecks = balance_kopecks + 100")
        assert stack.manage("verify_ledger").returncode == 1
        assert doctor_leads_to(stack, "drift")
        told = json.loads(stack.manage(*command("verify_ledger --json")).stdout)["drift"]
        right, inn = told["expected"], told["inn"]
        sql(stack, f"UPDATE ledger_organization SET balance_kopecks = {right} WHERE inn = '{inn}'")

    assert "All is right" in stack.manage("verify_ledger").stdout
    assert not doctor_leads_to(stack, "drift")


def sql(stack: LauncherStack, statement: str) -> None:
    code = f'from django.db import connection; connection.cursor().execute("{statement}")'
    done = stack.manage("shell", "-v0", "-c", code)
    assert done.returncode == 0, done.stderr
