"""What deploy/ has for Prometheus and Grafana: promtool takes it, and /metrics answers what it asks for."""

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from ruamel.yaml import YAML

from monitoring import problems
from tests.harness.servers import ROOT, missing_reason, promtool
from tests.monitoring.test_dashboard import verification

PROMETHEUS = ROOT / "deploy/prometheus"
RULES = [
    rule for group in YAML(typ="safe").load(PROMETHEUS / "alerts.yml")["groups"] for rule in group["rules"]
]
TESTS = YAML(typ="safe").load(PROMETHEUS / "alerts_test.yml")["tests"]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/prihod.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
LABELS = {"setting", "status", "kind", "le", "job", "instance"}


@pytest.mark.skipif(missing_reason("promtool") is not None, reason="promtool is not here")
@pytest.mark.parametrize(
    "check",
    [
        ("check", "rules", "alerts.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_prometheus_takes_it(check: tuple[str, ...]) -> None:
    done = subprocess.run([promtool(), *check], cwd=PROMETHEUS, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_is_seen_quiet_and_firing() -> None:
    for wanted in (bool, lambda alerts: not alerts):
        seen = {
            tried["alertname"]
            for test in TESTS
            for tried in test["alert_rule_test"]
            if wanted(tried["exp_alerts"])
        }
        assert seen == {rule["alert"] for rule in RULES}


def test_every_rule_leads_to_the_runbook() -> None:
    for rule in RULES:
        assert re.fullmatch(r"docs/runbook\.md#[a-z-]+", rule["annotations"]["runbook_url"]), rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning"}


def expressions() -> Iterator[tuple[str, str]]:
    """(where it stands, what is asked of Prometheus)"""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


@pytest.fixture
def exposed(db: None, settings: Any) -> set[str]:
    """Every name that a sample in the answer of /metrics can have; those of labels not counted yet, too."""
    settings.DEBUG = True
    verification()
    answer = Client().get("/metrics").content.decode()
    suffixes = {"counter": [""], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
    kinds = re.findall(r"^# TYPE (\w+) (\w+)$", answer, re.MULTILINE)
    return {name + suffix for name, kind in kinds for suffix in suffixes.get(kind, [])}


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_what_is_asked_for_is_there(place: str, expression: str, exposed: set[str]) -> None:
    asked = set(re.findall(r"\bprihod_\w+", expression))
    assert asked <= exposed, place
    assert asked or "up{" in expression, place
    by = re.findall(r"\b(?:by|on) \((.*?)\)", expression)
    labels = {label.strip() for one in by for label in one.split(",")} | set(
        re.findall(r"(\w+)=", expression)
    )
    assert labels - {""} <= LABELS, place


def test_gauges_of_several_web_containers_are_never_added_up() -> None:
    gauges = r"prihod_(backlog|oldest_waiting_seconds|\w+_waiting|\w+_alive|drift|verified_at|database_up)"
    for place, expression in expressions():
        bare = re.sub(rf"(max|absent)\({gauges}\)", "", expression)
        assert not re.search(gauges, bare), place


def test_verified_within_is_the_same_for_prometheus_and_us() -> None:
    rule = next(rule for rule in RULES if rule["alert"] == "PrihodVerificationOverdue")
    assert f"{problems.VERIFICATION_AGE_MAX.total_seconds() / 3600:.0f} * 3600" in rule["expr"]


def test_the_dashboard_asks_the_source_that_is_chosen_and_no_panel_hides_another() -> None:
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
