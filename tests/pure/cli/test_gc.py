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
from myoverlay.tally import Tally
from tests.pure.kit import ANN

NAMES = [f"p{number:02}" for number in range(60)]


class Plugin:
    """The plugin's application on a unix socket."""

    def __init__(self, path: Path) -> None:
        self.tally = Tally()
        self.leftovers = Leftovers(self.tally, lambda: 0.0)
        nobody: Any = SimpleNamespace()
        control = Control(self.leftovers, self.tally, ANN, "ann")
        self.app: Any = create_app(
            NetworkDriver(nobody, nobody, nobody), IpamDriver(nobody, nobody, nobody), self.tally, control.methods()
        )
        self.server = make_server(f"unix://{path}", 0, lambda environ, start: self.app(environ, start))


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


def test_gc_shows_and_lets_go(tmp_path: Path, plugin: Plugin) -> None:
    """Nothing, then a table of what waits, then the word; a socket that is not there is passed over."""
    assert say(tmp_path, "gc") == "nothing waits for a word\n"
    plugin.leftovers.release("link", "demo", NAMES, 100)
    shown = say(tmp_path, "gc").splitlines()
    assert shown[0].split() == ["KIND", "OVERLAY", "NAME"]
    assert shown[1].split() == ["link", "demo", "p00"]
    assert shown[-1] == "60 wait: `myoverlay gc --yes` lets them go"
    assert plugin.leftovers.release("link", "demo", NAMES, 100) == frozenset()
    assert say(tmp_path, "gc", "--yes").splitlines()[-1] == "60 let go: they are removed within seconds"
    assert plugin.leftovers.release("link", "demo", NAMES, 100) == set(NAMES)


def test_json_is_the_answer_itself(tmp_path: Path, plugin: Plugin) -> None:
    """`--json` prints what the plugin answered, for both commands."""
    plugin.leftovers.release("link", "demo", NAMES, 100)
    held = json.loads(say(tmp_path, "gc", "--json"))["held"]
    assert held == [{"kind": "link", "overlay": "demo", "names": NAMES, "of": 100}]
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
