"""The alert rules and the dashboard against the table of metrics. That Prometheus takes them: tests/engine."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from myoverlay.operate.metrics import ANY, METRICS
from tests.prometheus import ALERTS, DASHBOARD, SERIES, UNIT_TESTS, Alert, alerts, named, queries

RULES = alerts()
FAULTS = [(metric, fault) for metric in METRICS for fault in metric.faults]


def watched(metric: Any, fault: str, rules: list[Alert]) -> bool:
    """Does some rule's expression name the metric, and the label that is a fault?"""
    asked_for = [re.split(r" (?:unless|and) on ", rule.expr)[0] for rule in rules]  # the rest only narrows it
    about = [expr for expr in asked_for if metric.exported in named(expr)]
    if fault == ANY:
        return bool(about)
    if fault[0] in "<>=":
        asked = rf"\b{metric.exported}(\{{[^}}]*\}})?\)? {re.escape(fault)}(?!\d)"
        return any(re.search(asked, expr) for expr in about)
    return any(re.search(rf'=~?"([^"]*\|)?{re.escape(fault)}(\|[^"]*)?"', expr) for expr in about)


@pytest.mark.parametrize(("metric", "fault"), FAULTS, ids=lambda value: getattr(value, "exported", value))
def test_every_fault_has_an_alert(metric: Any, fault: str) -> None:
    """What docs/metrics.md calls a fault calls somebody."""
    assert watched(metric, fault, RULES)


def test_a_fault_without_an_alert_is_seen() -> None:
    """Each rule that is taken out leaves something unwatched, but for those about others' metrics or about speed."""
    spare = {"MyoverlayDown", "MyoverlayStoreSlow", "MyoverlayDockerCallsSlow"}
    for rule in RULES:
        rest = [other for other in RULES if other is not rule]
        if rule.name not in spare:
            assert not all(watched(metric, fault, rest) for metric, fault in FAULTS), rule.name


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_an_alert_names_what_there_is(rule: Alert) -> None:
    """Only series that the plugin has (or `up`), on one line; a summary that names the host, a remedy."""
    assert named(rule.expr) <= SERIES
    assert named(rule.expr) or 'up{job="myoverlay"}' in rule.expr
    assert "{{ $labels.instance }}" in rule.summary
    assert rule.description.endswith(".")


def test_every_alert_has_its_unit_test() -> None:
    """Each is seen to fire in a case of alerts.test.yml, and the first case holds what is benign."""
    text = UNIT_TESTS.read_text()
    fired = set(re.findall(r'alertname="(\w+)"', text))
    assert fired == {rule.name for rule in RULES}
    assert len({rule.name for rule in RULES}) == len(RULES)
    first = text.partition("  - name: ")[2].partition("  - name: ")[0]
    assert "exp_samples: []" in first
    assert named(first) >= {name for rule in RULES for name in named(rule.expr)} - {
        "myoverlay_row_failures_total",
        "myoverlay_docker_call_seconds_bucket",
        "myoverlay_beat_builds_total",
        "myoverlay_docker_events_total",
    }


@pytest.mark.parametrize(("title", "query"), queries(), ids=lambda text: text[:40])
def test_the_dashboard_asks_for_what_there_is(title: str, query: str) -> None:
    """Each query names series of ours, and no other of that name; no variable is left in it."""
    assert named(query)
    assert named(query) <= SERIES
    assert "$" not in query


def test_the_dashboard_can_be_imported() -> None:
    """It brings its data source as a choice, panels have ids and places of their own, and each says what it shows."""
    board = json.loads(DASHBOARD.read_text())
    panels = board["panels"]
    assert board["schemaVersion"] >= 30
    assert {one["name"] for one in board["templating"]["list"]} == {"datasource", "instance"}
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [(x, y) for panel in panels for x, y in _cells(panel["gridPos"])]
    assert len(set(taken)) == len(taken)
    assert all(panel["type"] == "row" or panel["description"] for panel in panels)


def _cells(place: dict[str, int]) -> list[tuple[int, int]]:
    return [(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])]


def test_a_rule_of_another_form_is_refused() -> None:
    """An expression over several lines would be overlooked by what reads them here."""
    text = ALERTS.read_text()
    with pytest.raises(ValueError, match="not one line each"):
        alerts(text.replace("        expr: '", "        expr: >-\n          '", 1))
