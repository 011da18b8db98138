"""deploy/prometheus, deploy/grafana: promtool accepts the rules, and /metrics exports their metrics."""

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from ruamel.yaml import YAML

from monitoring import problems
from statements.models import NightlyReconciliation
from tests.harness.servers import ROOT, missing_reason, promtool
from tests.markers import sqlite_run_only
from tests.monitoring.test_dashboard import create_verification

pytestmark = sqlite_run_only

PROMETHEUS = ROOT / "deploy/prometheus"
RULES = [
    rule for group in YAML(typ="safe").load(PROMETHEUS / "alerts.yml")["groups"] for rule in group["rules"]
]
TESTS = YAML(typ="safe").load(PROMETHEUS / "alerts_test.yml")["tests"]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/prihod.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
LABELS = {"setting", "status", "kind", "le", "job", "instance"}


@pytest.mark.process
@pytest.mark.skipif(missing_reason("promtool") is not None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "check",
    [
        ("check", "rules", "alerts.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_accepts_the_configuration(check: tuple[str, ...]) -> None:
    done = subprocess.run([promtool(), *check], cwd=PROMETHEUS, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_is_tested_inactive_and_firing() -> None:
    for is_expected in (bool, lambda alerts: not alerts):
        tested = {
            case["alertname"]
            for test in TESTS
            for case in test["alert_rule_test"]
            if is_expected(case["exp_alerts"])
        }
        assert tested == {rule["alert"] for rule in RULES}


def test_every_rule_links_to_the_runbook() -> None:
    for rule in RULES:
        assert re.fullmatch(r"docs/runbook\.md#[a-z-]+", rule["annotations"]["runbook_url"]), rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning"}


def expressions() -> Iterator[tuple[str, str]]:
    """Yield (rule or panel, PromQL expression)."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


@pytest.fixture
def exposed(db: None, settings: Any) -> set[str]:
    """Return every sample name that /metrics can export, also for labels without a value yet."""
    settings.DEBUG = True
    create_verification()
    NightlyReconciliation.objects.create(unexplained=0, differences=0, kopecks=0)
    answer = Client().get("/metrics").content.decode()
    suffixes = {"counter": [""], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
    kinds = re.findall(r"^# TYPE (\w+) (\w+)$", answer, re.MULTILINE)
    return {name + suffix for name, kind in kinds for suffix in suffixes.get(kind, [])}


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_every_expression_uses_exported_metrics(place: str, expression: str, exposed: set[str]) -> None:
    used = set(re.findall(r"\bprihod_\w+", expression))
    assert used <= exposed, place
    assert used or "up{" in expression, place
    by = re.findall(r"\b(?:by|on) \((.*?)\)", expression)
    labels = {label.strip() for one in by for label in one.split(",")} | set(
        re.findall(r"(\w+)=", expression)
    )
    assert labels - {""} <= LABELS, place


def test_gauges_of_several_web_containers_are_never_summed() -> None:
    gauges = (
        r"prihod_(webhooks_pending|oldest_pending_age_seconds|webhooks_failed(?!_total)|\w+_open|\w+_up"
        r"|ledger_drift|ledger_verified_timestamp_seconds)"
    )
    for place, expression in expressions():
        bare = re.sub(rf"(max|absent)\({gauges}\)", "", expression)
        assert not re.search(gauges, bare), place


def test_verification_age_limit_is_the_same_in_prometheus() -> None:
    rule = next(rule for rule in RULES if rule["alert"] == "PrihodVerificationOverdue")
    assert f"{problems.VERIFICATION_AGE_MAX.total_seconds() / 3600:.0f} * 3600" in rule["expr"]


def test_grafana_panels_use_the_selected_source_and_do_not_overlap() -> None:
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    for panel in PANELS:
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
