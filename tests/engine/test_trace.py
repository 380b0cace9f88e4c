"""`trace`, `capture`, `exec` and `watch NETWORK` as programs, on two real engines of different age that repair."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lab import HostSpec, Lab, leftovers, places
from lab.engine import EngineHost
from lab.plugin_process import PluginProcess
from tests.engine.conftest import BOTH, IMAGE, eventually

NAME = "path"
OVERLAY = "10.5.0.0-24"
PIN = f"/run/docker/plugins/myoverlay/netns/{OVERLAY}"

pytestmark = pytest.mark.timeout(300)


class Site:
    """Hosts h1 (oldest engine) and h2 (newest) with a network `web`, and containers `ann` and `bob` on it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.h1, self.h2 = lab.hosts["h1"], lab.hosts["h2"]
        settings = {"CONSUL_HTTP_ADDR": lab.consul.url, "MYOVERLAY_DOCKER_SOCKET": "/run/docker.sock"}
        self.plugins = {host.name: PluginProcess(host, settings) for host in (self.h1, self.h2)}
        self.addresses: dict[str, str] = {}

    def prepare(self) -> None:
        for host, name in ((self.h1, "ann"), (self.h2, "bob")):
            self.plugins[host.name].start()
            host.docker("network", "create", *BOTH, "--subnet", "10.5.0.0/24", "web")
            host.docker("run", "-d", "--name", name, "--network", "web", IMAGE)
            form = '{{(index .NetworkSettings.Networks "web").IPAddress}}'
            self.addresses[name] = host.docker("inspect", "-f", form, name).strip()
        eventually("both are known by name", lambda: self.trace("ann", "bob")[0] == 0, 20)

    @property
    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(places.REPOSITORY / "src")}

    def say(self, host: EngineHost, *words: str) -> tuple[int, str, str]:
        done = host.complete([sys.executable, "-m", "myoverlay", *words], env=self.environment, timeout=30)
        return done.returncode, done.stdout, done.stderr

    def begin(self, host: EngineHost, *words: str) -> subprocess.Popen[str]:
        """A command that stays, listening when this returns."""
        command = [sys.executable, "-m", "myoverlay", *words]
        process: subprocess.Popen[str] = host.popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "Ctrl-C ends" in line, line
        return process

    def trace(self, a: str, b: str, host: EngineHost | None = None) -> tuple[int, dict[str, Any]]:
        code, out, err = self.say(host or self.h1, "trace", a, b, "--json")
        return code, json.loads(out) if out else {"said": err, "steps": [], "first": None}

    def first(self, a: str = "ann", b: str = "bob") -> tuple[str, str]:
        """Host and hop that is named, with exit code 1; empty for a path that is whole."""
        code, found = self.trace(a, b)
        if found["first"] is None:
            return "", ""
        assert code == 1
        step = found["steps"][found["first"]]
        return step["host"], step["hop"]

    def below(self, host: EngineHost, *words: str) -> None:
        host.run(["nsenter", f"--net={PIN}", *words])

    def dump(self) -> str:
        return "\n".join([self.lab.dump(), *(plugin.words()[-4000:] for plugin in self.plugins.values())])


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    before = leftovers.snapshot()
    with Lab(NAME, hosts=[HostSpec("h1", engine="old"), HostSpec("h2", engine="new")], consul=True) as lab:
        site = Site(lab)
        site.prepare()
        yield site
        for plugin in site.plugins.values():
            plugin.stop()
    assert leftovers.compare(before, leftovers.snapshot(), [NAME]) == []


def test_a_whole_path_by_names(site: Site) -> None:
    """Names of both hosts are found, every hop of both is right, and it says so with exit code 0, from either host."""
    for host in (site.h1, site.h2):
        code, found = site.trace("ann", "bob", host)
        assert code == 0, found
        assert [step["state"] for step in found["steps"]] == ["right"] * 29
        assert (found["source"]["host"], found["target"]["host"]) == ("h1", "h2")
    code, out, _ = site.say(site.h1, "trace", site.addresses["ann"], site.addresses["bob"])
    assert code == 0
    assert out.splitlines()[-1] == "the path is whole"


def test_what_the_plugin_heals(site: Site) -> None:
    """A row taken out here and a cable taken down there are named while they are wrong, then right by themselves."""
    bob = site.h2.docker("inspect", "-f", '{{(index .NetworkSettings.Networks "web").MacAddress}}', "bob").strip()
    port = "p" + site.h2.docker("inspect", "-f", '{{(index .NetworkSettings.Networks "web").EndpointID}}', "bob")[:12]

    def spoil_row() -> None:
        site.h1.complete(["nsenter", f"--net={PIN}", "bridge", "fdb", "del", bob, "dev", "vxlan1", "self"])

    def spoil_cable() -> None:
        site.below(site.h2, "ip", "link", "set", port, "down")

    for spoil, named in ((spoil_row, ("h1", "FDB row")), (spoil_cable, ("h2", "veth"))):

        def caught(spoil: Any = spoil, named: tuple[str, str] = named) -> bool:
            spoil()  # again and again: the plugin may put it right before we look
            return site.first() == named

        eventually(f"{named} is named", caught, 20)
        eventually(f"{named} is healed", lambda: site.first() == ("", ""), 10)


def test_what_a_person_repairs(site: Site) -> None:
    """A container's route and a firewall rule are not the plugin's: named until somebody did what is printed."""
    pid = site.h1.container_pid("ann", of_machine=False)
    site.h1.run(["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "route", "del", "10.5.0.0/24"])
    assert site.first() == ("h1", "container route")
    _, found = site.trace("ann", "bob")
    remedy = found["steps"][found["first"]]["remedy"].partition(";")[0]
    assert site.h1.complete(remedy.split()).returncode == 0, remedy
    assert site.first() == ("", "")
    site.h2.run(["nft", "add table inet stop; add chain inet stop c { type filter hook input priority 0; }; add rule inet stop c udp dport 4789 drop"])  # fmt: skip # noqa: E501
    assert site.first() == ("h2", "host firewall")
    code, _, err = site.say(site.h1, "trace", "ann", "bob")
    assert code == 1
    assert "table inet stop, chain c, rule" in err
    assert err.count("\n") == 1
    site.h2.run(["nft", "delete table inet stop"])
    eventually("the path is whole", lambda: site.first() == ("", ""), 10)


def test_exec_by_dockers_name(site: Site) -> None:
    """`web` is Docker's word: the plugin's overlay is found by it; the command's output and exit code are ours."""
    code, out, _ = site.say(site.h1, "exec", "web", "--", "ip", "-br", "link")
    assert code == 0
    assert "vxlan1" in out
    assert site.say(site.h1, "exec", "web", "--", "sh", "-c", "exit 5")[0] == 5
    code, _, err = site.say(site.h1, "exec", "nothing", "--", "true")
    assert code == 1
    assert f"its overlays are {OVERLAY}" in err


def test_capture_of_one_container_and_outside(site: Site) -> None:
    """A ping from ann to bob is in the file of bob's cable, and in VXLAN in that of the underlay."""
    path = str(site.h2.folder / "x.pcap")
    for words in (("--inner", "bob"), ("--outer",)):
        process = site.begin(site.h2, "capture", "web", *words, "-w", path, "-c", "4", "--timeout", "20")
        site.h1.docker("exec", "ann", "ping", "-c", "2", "-W", "2", site.addresses["bob"])
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        read = site.h2.run(["tcpdump", "-nr", path])
        assert "ICMP echo request" in read
        assert ("VXLAN" in read) == (words == ("--outer",))


def test_watch_follows_calls_and_the_store(site: Site) -> None:
    """A container that starts on the other host is a change of the store here, and its calls are seen there."""
    here = site.begin(site.h1, "watch", "web", "--store", "--json", "--count", "1", "--timeout", "60")
    there = site.begin(site.h2, "watch", "web", "--calls", "--json", "--count", "3", "--timeout", "60")
    site.h2.docker("run", "-d", "--name", "cid", "--network", "web", IMAGE)
    out, err = here.communicate(timeout=70)
    assert here.returncode == 0, err
    note = json.loads(out)
    assert (note["kind"], note["change"], note["host"]) == ("store", "came", "h2")
    out, err = there.communicate(timeout=70)
    assert there.returncode == 0, err
    methods = [json.loads(line)["method"] for line in out.splitlines()]
    assert methods == ["IpamDriver.RequestAddress", "NetworkDriver.CreateEndpoint", "NetworkDriver.Join"]
    site.h2.docker("rm", "-f", "cid")


def test_a_plugin_that_is_down_is_named(site: Site) -> None:
    """The other host's plugin is stopped: this half is seen, that host is named, exit code 1."""
    site.plugins["h2"].stop()
    try:
        code, found = site.trace("ann", "bob")
        assert code == 1
        assert found["first"] is None
        assert found["silent"] == ["h2"]
    finally:
        site.plugins["h2"].start()
    eventually("the path is whole", lambda: site.trace("ann", "bob")[0] == 0, 20)
