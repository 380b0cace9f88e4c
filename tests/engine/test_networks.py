"""Networks that are defined once for all hosts: made everywhere by one command, and asked about before."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lab import places
from lab.engine import EngineHost
from lab.lab import HostSpec, Lab
from lab.plugin_process import PluginProcess
from tests.engine.conftest import BOTH, eventually, ping

NAME = "nets"
AGES = {"h1": "old", "h2": "new", "h3": "old", "h4": "new"}
FIRST = ("h1", "h2", "h3")
#: Where names are asked for.
OURS = "169.254.77.53"


class Site:
    """Four hosts of both ages; three have a plugin that follows, the fourth gets one later."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.consul = lab.consul
        self.hosts: dict[str, EngineHost] = lab.hosts
        settings = {
            "CONSUL_HTTP_ADDR": lab.consul.url,
            "MYOVERLAY_FOLLOW": "on",
            "MYOVERLAY_DOCKER_SOCKET": "/run/docker.sock",
        }
        self.plugins = {name: PluginProcess(host, settings) for name, host in self.hosts.items()}

    def complete(self, host: str, *words: str) -> subprocess.CompletedProcess[str]:
        """`myoverlay …` on a host."""
        environment = {"PYTHONPATH": str(places.REPOSITORY / "src")}
        return self.hosts[host].complete([sys.executable, "-m", "myoverlay", *words], env=environment)

    def say(self, host: str, *words: str) -> str:
        done = self.complete(host, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def refused(self, host: str, *words: str) -> str:
        done = self.complete(host, *words)
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stderr

    def inspect(self, name: str, on: str = "h1") -> dict[str, Any]:
        return dict(json.loads(self.complete(on, "network", "inspect", name, "--json").stdout))

    def states(self, name: str) -> dict[str, str]:
        return {one["name"]: one["state"] for one in self.inspect(name)["hosts"]}

    def signal(self, host: str, name: str) -> None:
        """A signal to both processes of a host's plugin."""
        pids = self.hosts[host].run(["pgrep", "-f", "myoverlay serve"]).split()
        self.hosts[host].run(["kill", f"-{name}", *pids])

    def has(self, host: str, name: str) -> bool:
        """Does Docker have a network of that name there?"""
        return name in self.hosts[host].docker("network", "ls", "--format", "{{.Name}}").split()

    def run(self, host: str, name: str, network: str, *command: str, dns: str = "") -> str:
        """A container; its address."""
        words = ("--network", network, *(("--dns", dns) if dns else ()))
        self.hosts[host].docker("run", "-d", "--name", name, *words, "lab/base", *command)
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return self.hosts[host].docker("inspect", "-f", form, name)

    def clear(self) -> None:
        """No container and no network of a test stays."""
        for host in self.hosts.values():
            if host.engine_running() and (ids := host.docker("ps", "-aq").split()):
                host.docker("rm", "-f", *ids)
        for one in json.loads(self.complete("h1", "network", "ls", "--json").stdout)["networks"]:
            self.say("h1", "network", "rm", one["name"], "--force")
        for name in self.plugins:
            for one in self.hosts[name].docker("network", "ls", "-q", "--filter", "driver=myoverlay").split():
                self.hosts[name].docker("network", "rm", one, check=False)

    def dump(self) -> str:
        words = [f"=== {name} plugin\n{plugin.words()[-5000:]}" for name, plugin in self.plugins.items()]
        return "\n".join([self.lab.dump(), *words])


@pytest.fixture(scope="module")
def lab_of_four() -> Iterator[Site]:
    with Lab(NAME, [HostSpec(name, engine=age) for name, age in AGES.items()], consul=True) as lab:
        site = Site(lab)
        for name in FIRST:
            site.plugins[name].start()
        eventually("all are there", lambda: len(site.consul.keys("myoverlay/alive/")) == len(FIRST), 20)
        yield site
        for plugin in site.plugins.values():
            plugin.stop()


@pytest.fixture
def site(lab_of_four: Site, request: pytest.FixtureRequest) -> Iterator[Site]:
    yield lab_of_four
    if getattr(request.node, "failed", False):
        print(lab_of_four.dump())
    lab_of_four.clear()


@pytest.hookimpl
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    item.failed = call.excinfo is not None  # type: ignore[attr-defined]


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    began = time.monotonic()
    return act(), time.monotonic() - began


def test_one_command_makes_it_everywhere(site: Site) -> None:
    """One `network create`: three hosts of both engine ages have it, and containers of all pairs reach each other."""
    said, took = timed(lambda: site.say("h1", "network", "create", "web", "--label", "team=shop"))
    print(f"create: {took:.2f} s: {said.strip()}")
    assert said == f"network web ({site.inspect('web')['subnet']}) is defined; h1, h2, h3 have it\n"
    assert site.states("web") == dict.fromkeys(FIRST, "held")
    addresses = {name: site.run(name, f"c-{name}", "web") for name in FIRST}
    for name in FIRST:
        for other in FIRST:
            if other != name:
                assert len(ping(site.hosts[name], f"c-{name}", addresses[other], count=1)) == 1, (name, other)
        labels = json.loads(site.hosts[name].docker("network", "inspect", "-f", "{{json .Labels}}", "web"))
        assert labels["team"] == "shop"
    shown = site.inspect("web", on="h3")
    assert {(one["host"], one["address"]) for one in shown["containers"]} == set(addresses.items())
    table = site.say("h2", "network", "inspect", "web")
    assert addresses["h3"] in table
    listed = site.say("h2", "network", "ls")
    assert ["web", shown["subnet"], "web", "3/3", "-"] in [line.split() for line in listed.splitlines()]


def test_a_host_that_comes_later_gets_it_without_a_command(site: Site) -> None:
    """A fourth host whose plugin starts afterwards has it; its container and another's reach each other by name."""
    site.say("h2", "network", "create", "late", "--subnet", "10.61.0.0/24", "-o", "mtu=1400", "--internal")
    there = site.run("h2", "there", "late", dns=OURS)
    site.plugins["h4"].start()
    _, took = timed(lambda: eventually("h4 has it", lambda: site.has("h4", "late"), 20))
    print(f"the later host had it {took:.2f} s after its plugin's start")
    mine = site.run("h4", "mine", "late", dns=OURS)
    began = time.monotonic()
    for host, one, other in (("h4", "mine", "there"), ("h2", "there", "mine")):
        eventually(f"{one} finds {other}", lambda h=host, a=one, b=other: len(ping(site.hosts[h], a, b, count=1)) == 1)
    print(f"by name both ways {time.monotonic() - began:.2f} s after `docker run`")
    assert len(ping(site.hosts["h4"], "mine", there)) == 3
    assert len(ping(site.hosts["h2"], "there", mine)) == 3
    assert "1400" in site.hosts["h4"].in_container("mine", ["ip", "link", "show", "eth0"])
    assert eventually("it says so", lambda: site.states("late").get("h4") == "held")


def test_a_network_that_is_not_ours_is_left_alone(site: Site) -> None:
    """Where Docker has a network of that name the host says so, and makes ours once that one is gone."""
    h2 = site.hosts["h2"]
    h2.docker("network", "create", "--subnet", "172.29.0.0/24", "taken")
    before = h2.docker("network", "inspect", "taken")
    said = site.say("h1", "network", "create", "taken", "--subnet", "10.62.0.0/24")
    print(said.strip())
    assert "host h2: Docker has a network taken" in said
    assert "driver bridge" in said
    assert site.states("taken")["h2"] == "conflict"
    assert site.states("taken")["h1"] == "held"
    assert h2.docker("network", "inspect", "taken") == before
    h2.docker("network", "rm", "taken")
    eventually("ours is made", lambda: site.states("taken")["h2"] == "held", 45)
    h2.docker("network", "create", "--subnet", "172.29.1.0/24", "other")
    site.say("h1", "network", "create", "other", "--subnet", "10.63.0.0/24")
    site.say("h1", "network", "rm", "other")
    eventually("it is forgotten", lambda: "other" not in site.say("h1", "network", "ls"))
    assert "172.29.1.0/24" in h2.docker("network", "inspect", "other")
    h2.docker("network", "rm", "other")


def test_removal_is_refused_under_use_and_forced(site: Site) -> None:
    """While containers are on it `rm` names them; with `--force` they are taken off it, and it goes everywhere."""
    site.say("h1", "network", "create", "used", "--subnet", "10.64.0.0/24")
    addresses = {name: site.run(name, f"u-{name}", "used") for name in ("h1", "h3")}
    wanted = [f"u-{name} at {addresses[name]} on host {name}" for name in ("h1", "h3")]
    # Docker tells a container's name a moment after it started.
    eventually("the users are named", lambda: all(one in site.refused("h2", "network", "rm", "used") for one in wanted))
    assert site.states("used")["h2"] == "held"
    said = site.say("h2", "network", "rm", "used", "--force")
    assert said == "network used is removed\n"
    for name in FIRST:
        assert not site.has(name, "used")
    for name in ("h1", "h3"):
        assert site.hosts[name].docker("inspect", "-f", "{{.State.Running}}", f"u-{name}") == "true"
    eventually("nothing is left", lambda: [key for key in site.consul.keys("myoverlay/") if "used" in key] == [], 15)


def test_a_host_that_was_away_removes_it_when_it_is_back(site: Site) -> None:
    """A removal waits for the host whose plugin is stopped, names it, and is done when that is there again."""
    site.say("h1", "network", "create", "gone", "--subnet", "10.65.0.0/24")
    eventually("all hold it", lambda: set(site.states("gone").values()) == {"held"})
    site.plugins["h3"].stop()
    try:
        said = site.say("h1", "network", "rm", "gone")
        print(said.strip())
        assert "still on host h3" in said
        assert said.startswith("network gone is being removed\n")
        assert site.has("h3", "gone")
        assert "is still being removed on h3" in site.refused("h1", "network", "create", "gone")
    finally:
        site.plugins["h3"].start()
    eventually("it is gone there", lambda: not site.has("h3", "gone"), 20)
    eventually("its plan goes", lambda: "myoverlay/networks/gone" not in site.consul.keys("myoverlay/networks/"), 10)


def test_preflight_names_the_host_that_speaks_against_it(site: Site) -> None:
    """A route, a VNI, a port, and an underlay that is too small are refused naming the host; `--force` passes."""
    create = ("network", "create", "pre")
    h3 = site.hosts["h3"]
    h3.run(["ip", "route", "add", "10.66.0.0/16", "via", "172.30.0.1"])
    refusal, took = timed(lambda: site.refused("h1", *create, "--subnet", "10.66.3.0/24"))
    print(f"{took:.2f} s: {refusal.strip()}")
    assert "subnet 10.66.3.0/24 overlaps the route 10.66.0.0/16 of host h3" in refusal
    h3.run(["ip", "route", "del", "10.66.0.0/16"])
    h3.run(["ip", "link", "add", "strange", "type", "vxlan", "id", "4242", "dstport", "4789"])
    h3.run(["ip", "link", "set", "strange", "up"])
    refusal = site.refused("h2", *create, "--subnet", "10.66.3.0/24", "-o", "vni=4242")
    print(refusal.strip())
    assert "VNI 4242 is taken on host h3 by device strange in the host's namespace" in refusal
    h3.run(["ip", "link", "del", "strange"])
    program = (
        "import socket, sys; s = socket.socket(2, 2); s.bind(('', 4799)); print('bound', flush=True); sys.stdin.read()"
    )
    held = site.hosts["h2"].popen(["python3", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert held.stdout.readline().strip() == "bound"
    refusal = site.refused("h1", *create, "--subnet", "10.66.3.0/24", "-o", "port=4799")
    print(refusal.strip())
    assert "UDP port 4799 is taken on host h2 by a program" in refusal
    held.communicate(timeout=10)
    refusal = site.refused("h1", *create, "--subnet", "10.66.3.0/24", "-o", "mtu=1500")
    print(refusal.strip())
    assert "MTU 1500 does not fit through the underlay of hosts h1, h2, h3" in refusal
    assert "myoverlay/networks/pre" not in site.consul.keys("myoverlay/networks/")


def test_a_silent_host_and_a_narrow_path_are_named(site: Site) -> None:
    """A host that does not answer in 3 s is named, and so is one that full-size packets do not reach."""
    h3 = site.hosts["h3"]
    narrow = (
        "table netdev narrow { chain in { type filter hook ingress device eth0 priority 0;"
        " udp dport 4789 meta length > 1300 drop; }; }"
    )
    h3.run(["nft", "-f", "-"], input=narrow)
    said = site.say("h1", "network", "create", "narrow", "--subnet", "10.67.0.0/24")
    h3.run(["nft", "delete", "table", "netdev", "narrow"])
    print(said.strip())
    assert "packets of MTU 1450 do not come through between host h3 and hosts h1, h2" in said
    site.signal("h2", "STOP")
    try:
        said, took = timed(lambda: site.say("h1", "network", "create", "quiet", "--subnet", "10.68.0.0/24"))
    finally:
        site.signal("h2", "CONT")
    print(f"{took:.2f} s: {said.strip()}")
    assert "host h2 did not answer in time" in said
    assert took < 7.5
    eventually("h2 makes it all the same", lambda: site.has("h2", "quiet"), 20)
    assert [key for key in site.consul.keys("myoverlay/") if "/asks/" in key or "/answers/" in key] == []


def test_an_automatic_subnet_is_free_on_every_host(site: Site) -> None:
    """Without `--subnet` it is one of MYOVERLAY_POOLS that no host has a route to."""
    site.hosts["h2"].run(["ip", "route", "add", "10.128.0.0/16", "via", "172.30.0.1"])
    site.say("h1", "network", "create", "auto")
    site.hosts["h2"].run(["ip", "route", "del", "10.128.0.0/16"])
    assert site.inspect("auto")["subnet"] == "10.129.0.0/24"


def test_of_two_that_are_defined_at_once_none_has_what_the_other_has(site: Site) -> None:
    """Of two hosts that choose in the same moment one is refused naming the other, and has its own at the next try."""
    pairs = (("h1", "twin1"), ("h2", "twin2"))
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda pair: site.complete(pair[0], "network", "create", pair[1]), pairs))
    assert any(one.returncode == 0 for one in done)
    for (host, name), one in zip(pairs, done, strict=True):
        print((one.stdout + one.stderr).strip())
        if one.returncode:
            assert "just now, was given subnet 10.128.0.0/24: try again" in one.stderr
            site.say(host, "network", "create", name)
    assert {site.inspect(name)["subnet"] for _, name in pairs} == {"10.128.0.0/24", "10.128.1.0/24"}
    for name in FIRST:
        assert all(site.has(name, twin) for _, twin in pairs)


def test_a_network_of_the_same_overlay_made_by_hand_joins(site: Site) -> None:
    """A network that a person made with `docker network create` on one host is joined by its overlay's name."""
    h1 = site.hosts["h1"]
    h1.docker("network", "create", *BOTH, "--subnet", "10.69.0.0/24", "-o", "overlay=mine", "byhand")
    there = site.run("h1", "there", "byhand")
    said = site.say("h2", "network", "create", "everywhere", "-o", "overlay=mine")
    print(said.strip())
    assert "host h1: making network everywhere" in said  # it has the overlay under the other name
    assert "this host has already joined" in said
    mine = site.run("h3", "mine", "everywhere")
    assert mine.startswith("10.69.0.")
    assert len(ping(site.hosts["h3"], "mine", there)) == 3


def test_a_host_that_no_longer_follows_keeps_its_network_as_its_own(site: Site) -> None:
    """It is shown as one that says nothing, a removal does not wait for it, and its network works on."""
    site.say("h1", "network", "create", "own", "--subnet", "10.71.0.0/24")
    eventually("all hold it", lambda: set(site.states("own").values()) == {"held"})
    h3 = site.hosts["h3"]
    alone = PluginProcess(h3, {"CONSUL_HTTP_ADDR": site.consul.url})
    site.plugins["h3"].stop()
    try:
        alone.start()
        eventually("it says nothing", lambda: site.states("own").get("h3") == "none", 20)
        assert site.say("h1", "network", "rm", "own") == "network own is removed\n"
        assert site.has("h3", "own")
        assert site.run("h3", "still", "own").startswith("10.71.0.")
        h3.docker("rm", "-f", "still")
        alone.stop()
    finally:
        site.plugins["h3"].start()
    eventually("an orphan is told", lambda: "`docker network rm own`" in site.plugins["h3"].words(), 20)
    assert site.has("h3", "own")
    h3.docker("network", "rm", "own")


def test_an_engine_that_is_restarted_has_it_and_gets_what_came_meanwhile(site: Site) -> None:
    """While Docker is away nothing is lost; what was defined or removed meanwhile is done when it is back."""
    h2 = site.hosts["h2"]
    for name, subnet in (("stays", "10.72.0.0/24"), ("goes", "10.73.0.0/24")):
        site.say("h1", "network", "create", name, "--subnet", subnet)
        eventually("all hold it", lambda name=name: set(site.states(name).values()) == {"held"})
    h2.stop_engine()
    said = site.say("h1", "network", "rm", "goes")
    assert "still on host h2" in said
    site.say("h1", "network", "create", "comes", "--subnet", "10.74.0.0/24")
    h2.start_engine()
    eventually("what was defined is there", lambda: site.has("h2", "comes"), 45)
    eventually("what was removed is not", lambda: not site.has("h2", "goes"), 45)
    assert site.has("h2", "stays")
    there = site.run("h1", "there", "stays")
    site.run("h2", "mine", "stays")
    assert len(ping(h2, "mine", there)) == 3


def test_an_emptied_store_gets_its_networks_back(site: Site) -> None:
    """Nothing is removed when the store loses all; the plans are written again, and later hosts get them."""
    # The last here: the doubt outlasts it.
    site.say("h1", "network", "create", "kept", "--subnet", "10.70.0.0/24")
    eventually("all hold it", lambda: set(site.states("kept").values()) == {"held"})
    there = site.run("h1", "there", "kept")
    site.consul.wipe()
    eventually("its plan is back", lambda: "myoverlay/networks/kept" in site.consul.keys("myoverlay/networks/"), 60)
    for name in FIRST:
        assert site.has(name, "kept")
    site.run("h3", "mine", "kept")
    assert len(ping(site.hosts["h3"], "mine", there)) == 3
    assert "the store lost something lately" in site.refused("h1", "network", "create", "more")
