"""`myoverlay network …`: words in, sentences and tables out, over a real socket."""

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
from myoverlay.docker.app import create_app
from myoverlay.docker.driver import NetworkDriver
from myoverlay.docker.ipam import IpamDriver
from myoverlay.errors import Clash
from myoverlay.host.networks import Made, Shown, User
from myoverlay.networks import Became, HeldNetwork, NetworkPlan
from myoverlay.operate.networks import Networks
from myoverlay.plan.blueprint import Wish
from myoverlay.tally import Tally
from myoverlay.values import Address, Mac, OverlayName, Subnet
from tests.pure.kit import ANN, BOB, EVE

WEB = OverlayName("web")
PLAN = NetworkPlan(
    name=WEB, id="1" * 32, subnet=Subnet("10.5.0.0/24"), options={"vni": "7", "mtu": "1450"}, maker="ann"
)
NAMES = {ANN: "ann", BOB: "bob", EVE: "eve"}
USER = User(Address("10.5.0.7"), Mac("02:42:0a:05:00:07"), BOB, ("shop", "web"))
HELD = HeldNetwork(host=ANN, network=WEB, plan=PLAN.id, became=Became.HELD, host_name="ann")
FAILED = HeldNetwork(host=BOB, network=WEB, plan=PLAN.id, became=Became.FAILED, said="no", host_name="bob")


class Cluster:
    """Plays `ClusterNetworks`."""

    def __init__(self) -> None:
        self.wish: Wish | None = None
        self.force = False
        self.no: Exception | None = None
        self.held: tuple[HeldNetwork, ...] = (HELD,)

    def _check(self) -> None:
        if self.no is not None:
            raise self.no

    def create(self, wish: Wish, force: bool, deadline: float) -> Made:
        self._check()
        self.wish, self.force = wish, force
        return Made(PLAN, ("host eve did not answer in time",), (HELD, FAILED), ("eve",))

    def list(self, deadline: float) -> tuple[Any, ...]:
        return ((PLAN, (HELD, FAILED)),)

    def inspect(self, name: OverlayName, deadline: float) -> Shown:
        self._check()
        return Shown(PLAN, (HELD, FAILED), (USER,), NAMES, frozenset((ANN, EVE)))

    def remove(self, name: OverlayName, force: bool, deadline: float) -> Shown:
        self._check()
        self.force = force
        return Shown(PLAN, self.held, (USER,) if self.held else (), NAMES, frozenset((BOB, EVE)))


class Plugin:
    """The application on a unix socket."""

    def __init__(self, path: Path) -> None:
        self.cluster = Cluster()
        self.path = path
        cluster: Any = self.cluster
        nobody: Any = SimpleNamespace()
        app = create_app(
            NetworkDriver(nobody, nobody, nobody),
            IpamDriver(nobody, nobody, nobody),
            Tally(),
            Networks(cluster).methods(),
        )
        self.server = make_server(f"unix://{path}", 0, app)

    def say(self, *words: str, code: int = 0) -> tuple[str, str]:
        done = CliRunner().invoke(cli, ["network", *words], env={"MYOVERLAY_SOCKETS": str(self.path)})
        assert done.exit_code == code, done.output
        return done.stdout, done.stderr


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Plugin]:
    plugin = Plugin(tmp_path / "plugin.sock")
    thread = threading.Thread(target=plugin.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield plugin
    plugin.server.shutdown()
    thread.join(10)
    plugin.server.server_close()


def test_create_takes_dockers_words(plugin: Plugin) -> None:
    """All of them arrive in their form; what speaks against it, and who lacks it, is on standard error."""
    out, err = plugin.say(
        "create", "web", "--subnet", "10.5.0.0/24", "--ip-range", "10.5.0.128/25", "--gateway", "10.5.0.1",
        "--aux-address", "dns=10.5.0.2", "--internal", "-o", "mtu=1400", "--opt", "vni=7", "--label", "a=b=c",
        "--force",
    )  # fmt: skip
    assert plugin.cluster.wish == Wish(
        name=WEB,
        subnet=Subnet("10.5.0.0/24"),
        ip_range=Subnet("10.5.0.128/25"),
        gateway=Address("10.5.0.1"),
        aux={"dns": Address("10.5.0.2")},
        options={"mtu": "1400", "vni": "7"},
        labels={"a": "b=c"},
        internal=True,
    )
    assert plugin.cluster.force
    assert out == "network web (10.5.0.0/24) is defined; ann has it\n"
    assert err.splitlines() == [
        "myoverlay: host eve did not answer in time",
        "myoverlay: host bob: no",
        "myoverlay: not yet made on eve: `myoverlay network inspect web` tells",
    ]


def test_words_without_a_form_are_refused_in_one_sentence(plugin: Plugin) -> None:
    """Bad usage is code 2, what the plugin refuses is code 1."""
    assert "'mtu' is not NAME=VALUE" in plugin.say("create", "web", "-o", "mtu", code=2)[1]
    assert plugin.say("create", "Web", code=1)[1].startswith("myoverlay: 'Web' is no overlay name: 1 to 63 of a-z")
    said = plugin.say("create", "web", "--subnet", "10.5.0.1/24", code=1)[1]
    assert said == "myoverlay: 10.5.0.1/24 has host bits set\n"
    plugin.cluster.no = Clash("network web is in use by 10.5.0.7 on host bob")
    assert plugin.say("rm", "web", code=1)[1] == "myoverlay: network web is in use by 10.5.0.7 on host bob\n"
    assert plugin.say("inspect", "../x", code=1)[1].startswith("myoverlay: '../x' is no overlay name")


def test_ls_and_inspect_are_tables(plugin: Plugin) -> None:
    """Hosts with what became of it, also those that said nothing; containers with address and host."""
    rows = [line.split() for line in plugin.say("ls")[0].splitlines()]
    assert rows[1] == ["web", "10.5.0.0/24", "web", "1/2", "not", "on", "all:", "see", "inspect"]
    shown = plugin.say("inspect", "web")[0].splitlines()
    assert shown[0] == "web  subnet 10.5.0.0/24  overlay web  mtu=1450 vni=7"
    assert [line.split() for line in shown[2:5]] == [
        ["ann", ANN[:12], "held", "-", "-"],
        ["bob", BOB[:12], "failed", "away", "no"],
        ["eve", EVE[:12], "none", "-", "-"],
    ]
    assert shown[-1].split() == ["shop", "web", "10.5.0.7", "02:42:0a:05:00:07", "bob"]
    whole = json.loads(plugin.say("inspect", "web", "--json")[0])
    assert whole["containers"] == [
        {"names": ["shop", "web"], "address": "10.5.0.7", "mac": USER.mac, "host": "bob", "host_id": BOB}
    ]
    assert [one["state"] for one in whole["hosts"]] == ["held", "failed", "none"]
    assert json.loads(plugin.say("ls", "--json")[0])["networks"][0]["options"] == {"vni": "7", "mtu": "1450"}


def test_rm_says_what_remains(plugin: Plugin) -> None:
    """Hosts that are away, hosts that could not, containers; nothing: it is removed."""
    out, err = plugin.say("rm", "web", "--force")
    assert plugin.cluster.force
    assert out == "network web is being removed\n"
    assert err.splitlines() == [
        "myoverlay: still on host ann: that host is away, and removes it when it is back",
        "myoverlay: still on its overlay: shop 10.5.0.7 on host bob",
    ]
    plugin.cluster.held = ()
    assert plugin.say("rm", "web") == ("network web is removed\n", "")
    assert json.loads(plugin.say("rm", "web", "--json")[0]) == {"name": "web", "hosts": [], "containers": []}
