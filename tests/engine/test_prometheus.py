"""The real promtool reads what the plugin writes, and what examples/prometheus asks of it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from lab import fetch
from myoverlay.operate.exposition import Exposition
from myoverlay.plan.fates import State
from myoverlay.plan.sight import HeldSight
from myoverlay.tally import COUNTERS, DURATIONS, Tally
from tests.prometheus import ALERTS, FOLDER, UNIT_TESTS, queries
from tests.pure.sights import overlay, peer, sight

PROMTOOL = fetch.tool("promtool")


def promtool(*words: str | Path, stdin: bytes = b"", code: int = 0) -> str:
    command = [str(PROMTOOL), *map(str, words)]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False, cwd=FOLDER)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == code, said
    return said


def test_it_takes_the_page() -> None:
    """A page with everything on it, hostile names too, has no fault that promtool knows."""
    tally = Tally()
    for number, name in enumerate(COUNTERS):
        tally.add(name, "NetworkDriver.Join ok" if name == "docker_calls" else "x", number)
    for name in DURATIONS:
        tally.took(name, "get answered", 0.1)
    seen = sight(
        counts=tally.all(),
        overlays=(overlay("web"), overlay("db")),
        peers=(peer('"}\n\\'), peer("eve", state=State.DEAD), peer("eve", id="f" * 32)),
        held=(HeldSight(kind="link", overlay="web", count=60),),
        names={"resolver": {"process": 7, "troubles": []}, "docker": {"followed": True}},
    )
    lookout: Any = type("Lookout", (), {"look": lambda _: seen})()
    page = Exposition(lookout, tally).page()
    assert promtool("check", "metrics", stdin=page) == ""
    broken = page.replace(b"# TYPE myoverlay_drift gauge", b"# TYPE myoverlay_drift gage")
    assert "gage" in promtool("check", "metrics", stdin=broken, code=1)


def test_it_takes_the_configuration_and_the_rules() -> None:
    """The example configuration with its rules is valid."""
    said = promtool("check", "config", "prometheus.yml")
    assert "SUCCESS: prometheus.yml is valid" in said
    assert f"SUCCESS: {ALERTS.read_text().count('- alert: ')} rules found" in promtool("check", "rules", "alerts.yml")


def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    """The unit tests hold; with a rule made deaf, or one that calls when all is well, they do not."""
    assert "SUCCESS" in promtool("test", "rules", "alerts.test.yml")
    (tmp_path / "alerts.test.yml").write_text(only("no session", "another host has this one's id"))
    for right, wrong in (("myoverlay_barred == 1", "myoverlay_barred == 2"), ("has_session == 0", "has_session == 1")):
        (tmp_path / "alerts.yml").write_text(ALERTS.read_text().replace(right, wrong))
        assert "FAILED" in promtool("test", "rules", tmp_path / "alerts.test.yml", code=1)


def only(*names: str) -> str:
    """The unit tests with these cases alone: all of them take 20 s."""
    head, *cases = re.split(r"^(?=  - name: )", UNIT_TESTS.read_text(), flags=re.M)
    chosen = [case for case in cases if case.partition("'")[2].partition("'\n")[0].replace("''", "'") in names]
    assert len(chosen) == len(names)
    return head + "".join(chosen)


def test_each_query_of_the_dashboard_is_one(tmp_path: Path) -> None:
    """Made a recording rule, each is parsed; one with a bracket too few is not."""
    asked = queries()
    assert len(asked) > 25
    rules = [{"record": f"q{number}", "expr": expr} for number, (_, expr) in enumerate(asked)]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", path)
    rules[0]["expr"] += ")"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert "unexpected right parenthesis" in promtool("check", "rules", path, code=1)
