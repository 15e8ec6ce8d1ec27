"""The dashboard and the alerts ask, in PromQL that reads, for metrics and labels as Prometheus gets them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY

from mcp_policy_middleware.calls import Reason
from mcp_policy_middleware.telemetry.attributes import ATTRIBUTES
from mcp_policy_middleware.telemetry.metrics import INSTRUMENTS

ROOT = Path(__file__).parent.parent
GRAFANA = ROOT / "dashboards" / "grafana.json"
ALERTS = ROOT / "dashboards" / "alerts.yaml"
ALERT_TESTS = ROOT / "tests" / "data" / "alerts.test.yaml"
PAGE = ROOT / "docs" / "dashboards.md"

OURS = re.compile(r"\b(?:mcp_policy|gen_ai|error_type)\w*")
MATCHERS = re.compile(r"(\w+)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!=|=)\s*"([^"]*)"')
LEGEND = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")
OF_PROMETHEUS = {"job", "le"}
VALUES = {
    "mcp_policy_effect": {"allow", "deny"},
    "mcp_policy_enforced": {"true", "false"},
    "mcp_policy_reason_code": {reason.value for reason in Reason},
}
"""Labels whose values are known."""


@pytest.fixture(scope="module")
def scraped() -> dict[str, dict[str, set[str]]]:
    """What a scrape has of each metric that the package makes: labels by metric, and their values."""
    provider = MeterProvider([PrometheusMetricReader()])
    meter = provider.get_meter("mcp_policy_middleware")
    for one in INSTRUMENTS.values():
        told = {attribute.key: "some" for attribute in ATTRIBUTES if one.signal in attribute.signals}
        for enforced in (True, False):
            attributes = {**told, **({"mcp_policy.enforced": enforced} if "mcp_policy.enforced" in told else {})}
            if one.kind == "histogram":
                meter.create_histogram(one.signal, one.unit).record(1, attributes)
            elif one.kind == "counter":
                meter.create_counter(one.signal, one.unit).add(1, attributes)
            else:
                meter.create_gauge(one.signal, one.unit).set(1, attributes)
    found: dict[str, dict[str, set[str]]] = {}
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            for label, value in sample.labels.items():
                found.setdefault(sample.name, {}).setdefault(label, set()).add(value)
            found.setdefault(sample.name, {})
    provider.shutdown()
    return {name: labels for name, labels in found.items() if name.startswith("mcp_policy_")}


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels, without the rows."""
    return [panel for panel in json.loads(GRAFANA.read_text())["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    """The alert rules."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def questions() -> Iterator[tuple[str, str, str]]:
    """Whose PromQL it is, the PromQL, and text that names labels of its answer."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]
    for rule in rules():
        yield rule["alert"], rule["expr"], str(rule["annotations"])
    for variable in json.loads(GRAFANA.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            series = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
            assert series
            yield variable["name"], f"count by ({series[2]}) ({series[1]})", "{{" + series[2] + "}}"


@pytest.mark.parametrize(
    ("query", "legend"), [pytest.param(q, text, id=f"{name}-{q[:9]}") for name, q, text in questions()]
)
def test_what_is_asked_for_exists(query: str, legend: str, scraped: dict[str, dict[str, set[str]]]) -> None:
    """Every metric, every label and every known value of a label."""
    labels = {label for of_one in scraped.values() for label in of_one}
    named = set(OURS.findall(query))
    assert named <= scraped.keys() | labels
    assert named & scraped.keys()
    for metric, matchers in MATCHERS.findall(query):
        for label, wanted in MATCHER.findall(matchers):
            assert label in scraped[metric].keys() | OF_PROMETHEUS
            if label in VALUES:
                assert set(wanted.split("|")) <= VALUES[label]
    grouped = {label for labels in re.findall(r"by \(([^)]*)\)", query) for label in labels.split(", ")}
    assert set(LEGEND.findall(legend)) <= grouped
    assert grouped <= labels | OF_PROMETHEUS


def test_values_are_written_as_prometheus_gets_them(scraped: dict[str, dict[str, set[str]]]) -> None:
    """A truth value becomes a word."""
    assert scraped["mcp_policy_decision_duration_seconds_count"]["mcp_policy_enforced"] == VALUES["mcp_policy_enforced"]


def test_every_metric_is_on_the_dashboard(scraped: dict[str, dict[str, set[str]]]) -> None:
    """Nothing that is told goes unseen; a histogram has many series, of which one will do."""
    shown = {name for _, query, _ in questions() for name in OURS.findall(query)}
    families = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in scraped}
    assert families == {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown & scraped.keys()}


def test_the_dashboard_can_be_imported() -> None:
    """Data come from a variable, ids are unique, panels do not overlap, and each tells its meaning and unit."""
    dashboard = json.loads(GRAFANA.read_text())
    assert "datasource" in {variable["name"] for variable in dashboard["templating"]["list"]}
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        places = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not places & taken
        assert at["x"] + at["w"] <= 24
        taken |= places
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]


def test_every_alert_is_tried_and_told() -> None:
    """An alert has a test in which it is raised and one in which it is not, and a line in the guide."""
    raised: dict[str, set[bool]] = {}
    for test in yaml.safe_load(ALERT_TESTS.read_text())["tests"]:
        for one in test["alert_rule_test"]:
            raised.setdefault(one["alertname"], set()).add(bool(one["exp_alerts"]))
    assert raised == {rule["alert"]: {True, False} for rule in rules()}
    assert set(re.findall(r"`(McpPolicy\w+)`", PAGE.read_text())) == raised.keys()


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus's own checker."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed")
    return found


def run(*command: str | Path) -> None:
    """Run a program that must succeed."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_alerts_are_raised_when_they_should_be(promtool: str) -> None:
    """By Prometheus's own evaluation of them."""
    run(promtool, "check", "rules", ALERTS)
    run(promtool, "test", "rules", ALERT_TESTS)


def test_panels_ask_in_promql(promtool: str, tmp_path: Path) -> None:
    """With Grafana's variables filled in, as a file of rules."""
    recorded = [
        {
            "record": f"panel:{number}",
            "expr": re.sub(r"\$__\w+", "5m", query).replace("$job", ".*").replace("$tool", ".*"),
        }
        for number, (_, query, _) in enumerate(questions())
    ]
    assert not [one for one in recorded if "$" in one["expr"]]
    file = tmp_path / "panels.yaml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": recorded}]}))
    run(promtool, "check", "rules", file)
