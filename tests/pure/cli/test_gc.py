"""`myoverlay gc` and `myoverlay counters`, over a real unix socket with the real application behind it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from werkzeug.serving import make_server

from myoverlay.cli import ask as asking
from myoverlay.cli.main import cli
from myoverlay.docker.app import create_app
from myoverlay.docker.driver import NetworkDriver
from myoverlay.docker.ipam import IpamDriver
from myoverlay.errors import MyoverlayError, Unavailable
from myoverlay.host.leftovers import Leftovers
from myoverlay.operate.control import Control
from myoverlay.plan.brake import Held
from myoverlay.tally import Tally
from tests.pure.kit import ANN

NAMES = [f"p{number:02}" for number in range(60)]


class Plugin:
    """The plugin's application on a unix socket."""

    def __init__(self, path: Path) -> None:
        self.tally = Tally()
        self.leftovers = Leftovers(self.tally, lambda: 0.0)
        nobody: Any = SimpleNamespace()
        #: Links of the overlay demo that nobody asks for, out of 100; and what cannot be looked at.
        self.strays: list[str] = []
        self.unsure: tuple[str, ...] = ()
        control = Control(self.leftovers, self.tally, ANN, "ann", self._collect)
        self.app: Any = create_app(
            NetworkDriver(nobody, nobody, nobody), IpamDriver(nobody, nobody, nobody), self.tally, control.methods()
        )
        self.server = make_server(f"unix://{path}", 0, lambda environ, start: self.app(environ, start))

    def _collect(self, deadline: float) -> tuple[tuple[Held, ...], tuple[str, ...]]:
        """As the host's collector: whoever owns the links brings them to the brake, and removes what comes back."""
        mark = self.leftovers.mark()
        gone = self.leftovers.release("link", "demo", self.strays, 100)
        self.strays = [name for name in self.strays if name not in gone]
        return self.leftovers.since(mark), self.unsure


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Plugin]:
    plugin = Plugin(tmp_path / "plugin.sock")
    thread = threading.Thread(target=plugin.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield plugin
    plugin.server.shutdown()
    thread.join(10)
    plugin.server.server_close()


def say(tmp_path: Path, *words: str, code: int = 0) -> str:
    sockets = f"{tmp_path}/none.sock, {tmp_path}/plugin.sock"
    done = CliRunner().invoke(cli, list(words), env={"MYOVERLAY_SOCKETS": sockets})
    assert done.exit_code == code, done.output
    return done.output


NOTHING = "there is nothing that nobody asks for\n"


def test_gc_shows_and_collects_what_is_little(tmp_path: Path, plugin: Plugin) -> None:
    """Two links go without a word, and are named; afterwards nothing is there. A socket that is not there is passed."""
    assert say(tmp_path, "gc") == NOTHING
    plugin.strays = ["p01", "p00"]
    shown = [line.split() for line in say(tmp_path, "gc").splitlines()]
    assert shown == [
        ["KIND", "OVERLAY", "NAME", "STATE"],
        ["link", "demo", "p00", "collected"],
        ["link", "demo", "p01", "collected"],
    ]
    assert plugin.strays == []
    assert say(tmp_path, "gc") == NOTHING


def test_gc_refuses_what_is_too_much_until_yes(tmp_path: Path, plugin: Plugin) -> None:
    """60 links are shown and stay, with exit code 1 and the word that lets them go; with it they go, and are named."""
    plugin.strays = list(NAMES)
    shown = say(tmp_path, "gc", code=1).splitlines()
    assert [line.split() for line in shown[1:61]] == [["link", "demo", name, "held"] for name in NAMES]
    assert shown[61].startswith("myoverlay: 60 things are held: too much to be believed")
    assert "`myoverlay gc --yes`" in shown[61]
    assert plugin.strays == NAMES
    shown = say(tmp_path, "gc", "--yes").splitlines()
    assert [line.split() for line in shown[1:]] == [["link", "demo", name, "collected"] for name in NAMES]
    assert plugin.strays == []
    assert say(tmp_path, "gc") == NOTHING


def test_a_dry_run_changes_nothing(tmp_path: Path, plugin: Plugin) -> None:
    """It shows what is held, with exit code 0, and collects not even what needs no word."""
    plugin.strays = ["p00"]
    assert say(tmp_path, "gc", "--dry-run") == NOTHING
    assert plugin.strays == ["p00"]
    plugin.leftovers.release("link", "demo", NAMES, 100)
    assert say(tmp_path, "gc", "--dry-run").count(" held") == 60
    assert plugin.strays == ["p00"]
    assert "contradict" in say(tmp_path, "gc", "--dry-run", "--yes", code=2)


def test_what_could_not_be_looked_at_is_said(tmp_path: Path, plugin: Plugin) -> None:
    """With the store away gc does not claim that all was looked at: the sentence, and exit code 1."""
    plugin.unsure = ("Consul at http://192.0.2.9:8500 did not answer within 3 s: reading x",)
    said = say(tmp_path, "gc", code=1)
    assert said == NOTHING + "myoverlay: Consul at http://192.0.2.9:8500 did not answer within 3 s: reading x\n"


def test_what_goes_later_is_counted(tmp_path: Path, plugin: Plugin) -> None:
    """A person's word also holds for what is not brought to the brake just now: that is said."""
    plugin.leftovers.release("lease", "demo", NAMES, 100)
    assert say(tmp_path, "gc", "--yes").splitlines()[-1].startswith("60 more are let go")


def test_json_is_the_answer_itself(tmp_path: Path, plugin: Plugin) -> None:
    """`--json` prints what the plugin answered, for both commands."""
    plugin.leftovers.release("link", "demo", NAMES, 100)
    answer = json.loads(say(tmp_path, "gc", "--dry-run", "--json"))
    held = {"kind": "link", "overlay": "demo", "names": NAMES, "of": 100}
    assert answer == {"held": [held], "let_go": False, "collected": [], "unsure": []}
    counted = json.loads(say(tmp_path, "counters", "--json"))
    assert counted["braked"] == {"link": 60}
    table = [line.split() for line in say(tmp_path, "counters").splitlines()]
    assert table[0] == ["COUNTER", "LABEL", "COUNT"]
    assert ["braked", "link", "60"] in table


def test_nobody_there_is_one_sentence(tmp_path: Path) -> None:
    """Where no plugin answers the sentence names the sockets, and how to run the command inside a managed plugin."""
    said = say(tmp_path, "gc", code=1)
    assert said.startswith("myoverlay: no plugin answers on ")
    assert f"{tmp_path}/none.sock (No such file or directory), {tmp_path}/plugin.sock" in said
    assert "is it running" in said
    assert "runc --root" in said
    assert said.count("\n") == 1


def test_a_plugin_that_hangs_ends_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that accepts and says nothing is given up after the time-out, in one sentence."""
    monkeypatch.setenv("MYOVERLAY_SOCKETS", f"{tmp_path}/plugin.sock")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/plugin.sock")
        silent.listen(1)
        with pytest.raises(Unavailable, match=r"did not answer within 0\.1 s"):
            asking.ask("Control.Gc", timeout=0.1)


def test_a_refusal_is_the_plugins_sentence(tmp_path: Path, plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the daemon says no with is what the command says."""
    monkeypatch.setenv("MYOVERLAY_SOCKETS", f"{tmp_path}/plugin.sock")
    with pytest.raises(MyoverlayError, match="the request is not understood"):
        asking.ask("Control.Gc", yes="perhaps")


def test_a_stranger_on_the_socket_is_named(tmp_path: Path, plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is no JSON object is not taken for the plugin's."""

    def stranger(_environ: Any, start: Any) -> list[bytes]:
        start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
        return [b"hello"]

    plugin.app = stranger
    monkeypatch.setenv("MYOVERLAY_SOCKETS", f"{tmp_path}/plugin.sock")
    with pytest.raises(Unavailable, match="is it our plugin"):
        asking.ask("Control.Gc")
