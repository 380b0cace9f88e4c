"""The files of examples/prometheus as tests read them: alert rules, their unit tests, the dashboard's queries."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from myoverlay.operate.metrics import METRICS

FOLDER = Path(__file__).parents[1] / "examples" / "prometheus"
ALERTS, UNIT_TESTS, DASHBOARD = (FOLDER / name for name in ("alerts.yml", "alerts.test.yml", "dashboard.json"))
_ENDINGS = {"histogram": ("_bucket", "_count", "_sum")}
#: Every series that the plugin has, by the name that Prometheus sees.
SERIES = {metric.exported + ending for metric in METRICS for ending in _ENDINGS.get(metric.kind, ("",))}


class Alert(NamedTuple):
    """A rule: its expression on one line, and what it tells a person."""

    name: str
    expr: str
    summary: str
    description: str


def alerts(text: str | None = None) -> list[Alert]:
    """The rules in their order. Raises ValueError where one is not of the form that this file keeps."""
    text = ALERTS.read_text() if text is None else text
    found = []
    for block in re.split(r"^      - alert: ", text, flags=re.M)[1:]:
        fields = dict(re.findall(r"^ +(expr|summary|description): '(.*)'$", block, re.M))
        if set(fields) != {"expr", "summary", "description"}:
            raise ValueError(f"not one line each of expr, summary and description: {block}")
        unquoted = {name: value.replace("''", "'") for name, value in fields.items()}
        found.append(Alert(block.partition("\n")[0], **unquoted))
    return found


def queries() -> list[tuple[str, str]]:
    """Each of the dashboard's queries with its panel's title, as Grafana would ask it with nothing chosen."""
    board = json.loads(DASHBOARD.read_text())
    found = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel.get("targets", ())]
    return [(title, expr.replace("$__rate_interval", "5m").replace("$instance", ".*")) for title, expr in found]


def named(expr: str) -> set[str]:
    """The series of ours that an expression names."""
    return set(re.findall(r"\bmyoverlay_\w+", expr))
