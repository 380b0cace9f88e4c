"""`myoverlay doctor`: what a person reads, exit codes, --fix; and from its own process, where no plugin answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from werkzeug.serving import make_server

from myoverlay.cli.main import cli
from myoverlay.docker.app import create_app, create_refusing_app
from myoverlay.docker.driver import NetworkDriver
from myoverlay.docker.ipam import IpamDriver
from myoverlay.operate.doctor import Doctor
from myoverlay.plan.brake import Held
from myoverlay.plan.check_kernel import Filters, Left
from myoverlay.plan.check_plugin import Running
from myoverlay.plan.check_underlay import Lead, Subnets
from myoverlay.plan.checkup import CHECKS
from myoverlay.tally import Tally
from myoverlay.values import Subnet

FILTER = "net/bridge/bridge-nf-call-iptables"


class Patient:
    """A plugin's application on a unix socket, with readings that are handed in."""

    def __init__(self, path: Path) -> None:
        self.filters = Filters(looked=1)
        self.left = Left()
        self.subnets = Subnets()
        readings = {
            "plugin": lambda _: Running(True),
            "bridge-netfilter": lambda _: self.filters,
            "leftovers": lambda _: self.left,
            "subnets": lambda _: self.subnets,
        }
        nobody: Any = SimpleNamespace()
        drivers = NetworkDriver(nobody, nobody, nobody), IpamDriver(nobody, nobody, nobody)
        self.app: Any = create_app(*drivers, Tally(), Doctor(readings, self).methods())  # type: ignore[arg-type]
        self.server = make_server(f"unix://{path}", 0, lambda environ, start: self.app(environ, start))

    def filters_off(self, deadline: float) -> tuple[str, ...]:
        self.filters = Filters(looked=1)
        return ("web",)

    def collect(self, deadline: float) -> tuple[tuple[Held, ...], tuple[str, ...]]:
        return (), ()


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Patient]:
    patient = Patient(tmp_path / "plugin.sock")
    thread = threading.Thread(target=patient.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield patient
    patient.server.shutdown()
    thread.join(10)
    patient.server.server_close()


def say(tmp_path: Path, *words: str, code: int = 0, **environ: str) -> str:
    env = {"MYOVERLAY_SOCKETS": f"{tmp_path}/plugin.sock", "MYOVERLAY_LAB_HOME": ""} | environ
    done = CliRunner().invoke(cli, ["doctor", *words], env=env)
    assert done.exit_code == code, done.output
    return done.output


def test_a_table_and_what_to_do(tmp_path: Path, patient: Patient) -> None:
    """A line for each check; below it, for what is not ok, meaning and remedy, and exit code 1 for what is bad."""
    shown = say(tmp_path).splitlines()
    assert shown[0].split() == ["CHECK", "STATE", "SAW"]
    assert [line.split()[0] for line in shown[1:]] == [check.name for check in CHECKS]
    patient.filters = Filters({"/p/web": (FILTER,)}, 1)
    text = say(tmp_path, code=1)
    (line,) = (line for line in text.splitlines() if line.startswith("bridge-netfilter "))
    assert line.split()[1] == "BAD"
    assert "\nbridge-netfilter: bridge-nf-call-iptables on in 1 overlay namespace: /p/web\n  means: frames" in text
    assert "`nsenter --net=/p/web sysctl -w net.bridge.bridge-nf-call-iptables=0`" in text


def test_a_warning_is_shown_and_is_no_failure(tmp_path: Path, patient: Patient) -> None:
    """`warn` and `unknown` stand in the table with exit code 0."""
    patient.subnets = Subnets((("web", Subnet("10.5.0.0/24")),), (Lead(Subnet("10.5.0.0/25"), "eth0"),))
    text = say(tmp_path)
    assert any(line.split()[:2] == ["subnets", "warn"] for line in text.splitlines())
    assert "`ip route del 10.5.0.0/25 dev eth0`" in text


def test_json_holds_all_findings(tmp_path: Path, patient: Patient) -> None:
    """For machines: the same, whole, with how many are bad."""
    patient.filters = Filters({"/p/web": (FILTER,)}, 1)
    told = json.loads(say(tmp_path, "--json", code=1))
    assert told["bad"] == 1
    assert told["did"] == []
    assert [one["check"] for one in told["findings"]] == [check.name for check in CHECKS]
    (found,) = (one for one in told["findings"] if one["level"] == "bad")
    assert set(found) == {"check", "level", "saw", "means", "remedy", "fixes"}
    assert found["fixes"] is True


def test_fix_does_what_is_safe_and_looks_again(tmp_path: Path, patient: Patient) -> None:
    """What was done is said first, then what is found afterwards; with nothing to do that is said."""
    patient.filters = Filters({"/p/web": (FILTER,)}, 1)
    shown = say(tmp_path, "--fix").splitlines()
    assert shown[0] == "did: bridge-nf-call-* was put off for web"
    assert any(line.split()[:2] == ["bridge-netfilter", "ok"] for line in shown)
    assert say(tmp_path, "--fix").startswith("did: there was nothing that may be done by itself\n")


def test_what_fix_may_not_do_stays_bad(tmp_path: Path, patient: Patient) -> None:
    """What the brake holds needs a person's word: --fix collects, and the finding stays, with exit code 1."""
    patient.left = Left((Held(kind="namespace", overlay="", names=("old",), of=4),))
    text = say(tmp_path, "--fix", code=1)
    assert "1 namespace nobody asks for: old" in text
    assert "`myoverlay gc --yes`" in text


def test_without_a_plugin_the_command_looks_itself(tmp_path: Path) -> None:
    """Nobody answers: that is bad, with the remedy; the machine is looked at all the same, the rest says why not."""
    told = json.loads(say(tmp_path, "--json", "--fix", code=1, MYOVERLAY_STATE=str(tmp_path), CONSUL_HTTP_ADDR=""))
    found = {one["check"]: one for one in told["findings"]}
    assert found["plugin"]["level"] == found["sockets"]["level"] == "bad"
    assert "no plugin answers on" in found["plugin"]["saw"]
    assert "`docker plugin enable NAME`" in found["plugin"]["remedy"]
    for name in ("settings", "token-file", "journal", "kernel"):
        assert found[name]["level"] == "ok", found[name]
    for name in ("peer-port", "vni", "leftovers"):
        assert found[name]["saw"] == "not looked at: the plugin does not run"
    assert told["did"] == ["nothing is repaired while the plugin does not run"]


def test_settings_that_are_refused_are_the_finding(tmp_path: Path) -> None:
    """A setting that cannot be read keeps the plugin from beginning, and everything else from being looked at."""
    env = {"MYOVERLAY_PORT": "x", "MYOVERLAY_SOCKETS": f"{tmp_path}/plugin.sock"}
    done = CliRunner().invoke(cli, ["doctor", "--json"], env=env)
    assert done.exit_code == 1, done.output
    found = {one["check"]: one for one in json.loads(done.output)["findings"]}
    assert found["settings"]["level"] == "bad"
    assert "MYOVERLAY_PORT: 'x' is no whole number" in found["settings"]["saw"]
    assert found["kernel"]["saw"] == "not looked at: the settings are refused"


def test_a_plugin_that_does_not_begin_says_why(tmp_path: Path, patient: Patient) -> None:
    """It answers and does nothing: its sentence is the finding, and the rest is looked at from here."""
    patient.app = create_refusing_app("journal.db was written by a newer version")
    told = json.loads(say(tmp_path, "--json", code=1, MYOVERLAY_STATE=str(tmp_path), CONSUL_HTTP_ADDR=""))
    found = {one["check"]: one for one in told["findings"]}
    assert "the plugin answers, and does nothing: journal.db was written by a newer version" in found["plugin"]["saw"]
    assert found["journal"]["level"] == "ok"


def test_a_command_is_never_broken_into_lines(tmp_path: Path, patient: Patient) -> None:
    """What is to be copied stands on one line, however long it is."""
    path = "/run/docker/plugins/myoverlay/netns/" + "x" * 60
    patient.filters = Filters({path: tuple(f"{FILTER}{n}" for n in range(5))}, 1)
    lines = say(tmp_path, code=1).splitlines()
    assert any(
        f"`nsenter --net={path} sysctl -w" in line and f"{FILTER.replace('/', '.')}4=0`" in line for line in lines
    )
