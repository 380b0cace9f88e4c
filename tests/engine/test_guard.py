"""The guard on real engines of two ages, and a third machine on the underlay that has no business with them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import HostSpec, Lab, leftovers, places
from lab.engine import EngineHost
from lab.plugin_process import PluginProcess
from myoverlay.kernel import netns
from tests.attack.board import Board, board
from tests.attack.datagrams import Ear, send
from tests.engine.conftest import BOTH, ICMP, IMAGE, eventually, ping, refused
from tests.engine.injecting import inject, of_container, of_host

__all__ = ["board"]

NAME = "guard"
OVERLAY = "10.5.0.0-24"
PIN = f"/run/docker/plugins/myoverlay/netns/{OVERLAY}"
#: A VNI that is nobody's here, on our port: as Swarm's and flannel's are.
FOREIGN = 4097
WITHOUT_NFT = Path(__file__).with_name("without_nft.py")

pytestmark = pytest.mark.timeout(240)


class Site:
    """Hosts h1 (oldest engine) and h2 (newest) with the network `web`, container `ann` and `bob` on it; h3 attacks."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.h1, self.h2, self.h3 = (lab.hosts[name] for name in ("h1", "h2", "h3"))
        self.engines = (self.h1, self.h2)
        self.settings = {"CONSUL_HTTP_ADDR": lab.consul.url}
        self.plugins = {host.name: PluginProcess(host, self.settings) for host in self.engines}
        self.addresses: dict[str, str] = {}

    def begin(self) -> None:
        for host, name in ((self.h1, "ann"), (self.h2, "bob")):
            self.plugins[host.name].start()
            host.docker("network", "create", *BOTH, "--subnet", "10.5.0.0/24", "web")
            host.docker("run", "-d", "--name", name, "--network", "web", IMAGE)
            form = "{{.NetworkSettings.Networks.web.IPAddress}}"
            self.addresses[name] = host.docker("inspect", "-f", form, name).strip()
        eventually("they reach each other", lambda: len(ping(self.h1, "ann", self.addresses["bob"], count=1)) == 1, 20)

    def end(self) -> None:
        for plugin in self.plugins.values():
            plugin.stop()

    def restart(self, host: EngineHost, python: str = sys.executable, **settings: str) -> None:
        plugin = self.plugins[host.name]
        plugin.stop()
        plugin.settings, plugin.python = self.settings | settings, python
        plugin.start()
        eventually("it knows the others", lambda: self.peers(host), 30)

    def say(self, host: EngineHost, *words: str) -> subprocess.CompletedProcess[str]:
        """`myoverlay …` on a host."""
        environment = {"PYTHONPATH": str(places.REPOSITORY / "src"), **self.settings}
        return host.complete([sys.executable, "-m", "myoverlay", *words], env=environment, timeout=30)

    def told(self, host: EngineHost, *words: str) -> Any:
        done = self.say(host, *words, "--json")
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def peers(self, host: EngineHost) -> list[dict[str, Any]]:
        """The others, as this host's heartbeat sees them."""
        return [one for one in self.told(host, "status").get("peers", []) if one["state"] == "alive"]

    def count(self, host: EngineHost, name: str, label: str) -> int:
        return int(self.told(host, "counters").get(name, {}).get(label, 0))

    def finding(self, host: EngineHost) -> dict[str, Any]:
        """What `doctor` says of the guard."""
        found = self.told(host, "doctor")["findings"]
        return {one["check"]: one for one in found}["guard"]

    def all_is_well(self) -> None:
        """Containers reach each other, and the hosts' kernels answer each other through the guard."""
        assert len(ping(self.h1, "ann", self.addresses["bob"])) == 3
        assert len(ping(self.h2, "bob", self.addresses["ann"])) == 3
        for host in self.engines:
            assert len(self.peers(host)) == 1, self.told(host, "status")

    def dump(self) -> str:
        return "\n".join(
            f"=== {host.name}\n{host.dump()}\n{self.plugins[host.name].words()[-6000:]}" for host in self.engines
        )


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    before = leftovers.snapshot()
    with Lab(NAME, [HostSpec("h1", "old"), HostSpec("h2", "new"), HostSpec("h3", None)], consul=True) as lab:
        site = Site(lab)
        site.begin()
        yield site
        site.end()
    assert leftovers.compare(before, leftovers.snapshot(), [NAME]) == []


@pytest.fixture(autouse=True)
def guarded(site: Site) -> None:
    """Each attack is made on hosts that are guarded."""
    for host in site.engines:
        if site.plugins[host.name].settings != site.settings:
            site.restart(host)
    site.all_is_well()


def both_ways(site: Site, victim: str, at: EngineHost, sender: Path) -> tuple[str, str]:
    """The same with no host guarded, and with all of them."""
    for host in site.engines:
        site.restart(host, MYOVERLAY_GUARD="off")
    before = inject(victim, at, PIN, sender)
    for host in site.engines:
        site.restart(host)
    return before, inject(victim, at, PIN, sender)


@pytest.mark.parametrize("name", ["h1", "h2"])
def test_a_stranger_on_the_underlay(site: Site, board: Board, name: str) -> None:
    """VXLAN of our VNI from a machine that is no host of the overlay is kept out and counted; containers and heartbeat
    go on.
    """
    host, victim = site.lab.hosts[name], {"h1": "ann", "h2": "bob"}[name]
    before, after = both_ways(site, victim, host, of_host(site.h3))
    board.write(f"VXLAN from an unknown machine (Docker {host.engine_version[:5]})", before, after)
    assert (before, after) == ("injected", "dropped")
    eventually("the count", lambda: site.count(host, "guard", "unknown") >= 3, 8)
    site.all_is_well()
    assert site.count(site.h1, "guard", "local") == site.count(site.h2, "guard", "local") == 0


def test_a_process_of_a_member(site: Site, board: Board) -> None:
    """Host processes cannot send VXLAN of ours, whoever they are; the kernel's own passes."""
    before, after = both_ways(site, "bob", site.h2, of_host(site.h1))
    board.write("VXLAN from a process of a member, real engines", before, after)
    assert (before, after) == ("injected", "EPERM")
    site.all_is_well()


#: The ways out of a container, by its network.
WAYS = {"web": "its overlay's gateway", "away": "docker_gwbridge", "bridge": "docker0"}


@pytest.mark.parametrize("network", WAYS)
def test_a_container_of_a_member(site: Site, board: Board, network: str) -> None:
    """A container sends VXLAN to another host's VTEP, by each way out there is: masqueraded it would come from a live
    VTEP; its own host stops and counts it, and whatever else it sends there arrives.
    """
    if network == "away":
        away = (*BOTH, "--subnet", "10.7.0.0/24", "-o", "egress=docker")
        site.h1.docker("network", "create", *away, "away")
    site.h1.docker("run", "-d", "--name", "mallory", "--network", network, IMAGE)
    try:
        inside = of_container(site.h1, "mallory")
        before, after = both_ways(site, "bob", site.h2, inside)
        board.write(f"VXLAN from a container by {WAYS[network]}, real engines", before, after)
        assert (before, after) == ("injected", "dropped")
        eventually("the count", lambda: site.count(site.h1, "guard", "unknown") >= 3, 8)
        with netns.open_path(of_host(site.h2)) as ns, Ear(ns, port=7001) as ear, netns.open_path(inside) as home:
            send(home, site.h2.address, b"hello", port=7001)
            assert ear.hears(1.0)
        site.all_is_well()
    finally:
        site.h1.docker("rm", "-f", "mallory", check=False)
        site.h1.docker("network", "rm", "away", check=False)


def test_a_foreign_vni_on_our_port(site: Site) -> None:
    """A VXLAN of somebody else's, to a machine that is no host of ours, works on guarded hosts; none is dropped."""
    ends = ((site.h1, site.h3, "10.99.0.1"), (site.h3, site.h1, "10.99.0.3"))
    site.restart(site.h1)
    try:
        for here, there, address in ends:
            words = f"id {FOREIGN} dstport 4789 local {here.address} remote {there.address}".split()
            here.run(["ip", "link", "add", "foreign", "type", "vxlan", *words])
            here.run(["ip", "address", "add", f"{address}/24", "dev", "foreign"])
            here.run(["ip", "link", "set", "foreign", "up"])
        for here, _, address in ends:
            other = "10.99.0.3" if address == "10.99.0.1" else "10.99.0.1"
            assert "answered" in here.run(["python3", "-c", ICMP, other, "5"])
        assert site.count(site.h1, "guard", "unknown") == 0
        site.all_is_well()
    finally:
        for here, _, _ in ends:
            here.run(["ip", "link", "del", "foreign"], check=False)


def test_a_flushed_ruleset(site: Site, board: Board) -> None:
    """After `nft flush ruleset`, as a firewall's reload does, the guard is back within the reconciler's round: counted,
    noted by the flight recorder and in the log; nothing of the containers' traffic is lost meanwhile.
    """
    site.restart(site.h1)
    notes: list[str] = []
    following = threading.Thread(
        target=lambda: notes.append(
            site.say(
                site.h1, "watch", OVERLAY, "--kernel", "--json", "--count", "1", "--timeout", "20"
            ).stdout
        )
    )  # fmt: skip
    following.start()
    answered: list[float] = []
    pinging = threading.Thread(
        target=lambda: answered.extend(ping(site.h1, "ann", site.addresses["bob"], count=60, interval=0.1))
    )
    pinging.start()
    eventually("it follows and pings", lambda: _follows(site), 10)
    site.h1.run(["nft", "flush", "ruleset"])
    before = inject("ann", site.h1, PIN, of_host(site.h3))
    eventually("the repair", lambda: site.count(site.h1, "repairs", "guard") == 1, 6)
    eventually("h1 is guarded", lambda: inject("ann", site.h1, PIN, of_host(site.h3)) == "dropped", 3)
    board.write("VXLAN from an unknown machine, after `nft flush ruleset`", before, "dropped (within 3 s)")
    following.join(30)
    pinging.join(30)
    noted = [json.loads(line) for line in notes[0].splitlines()]
    assert [(note["event"], note["reason"]) for note in noted] == [("repaired", "guard")], noted
    assert "guard: its table was another, or gone" in site.plugins["h1"].words()
    assert len(answered) == 60
    assert site.finding(site.h1)["level"] == "ok"
    assert "made anew 1 time since" in site.finding(site.h1)["saw"]
    site.all_is_well()


def _follows(site: Site) -> bool:
    return "Control.Watch" in site.plugins["h1"].words()[-4000:]


def test_a_kernel_without_nf_tables(site: Site) -> None:
    """`on`: a network is refused in one sentence that says what helps, what runs already goes on, and `status` and
    `doctor` say so. `warn`: the network is made and carries traffic, and all the same is said.
    """
    python = site.h1.folder / "python-without-nft"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{WITHOUT_NFT}" "$@"\n')
    python.chmod(0o755)
    new = ("network", "create", *BOTH, "--subnet", "10.6.0.0/24", "new")
    site.restart(site.h1, str(python))
    said = refused(site.h1, *new)
    assert "overlay 10.6.0.0-24 cannot be guarded against VXLAN from strangers" in said
    assert "Protocol not supported" in said
    assert "MYOVERLAY_GUARD=warn" in said
    _says_so(site, "bad")
    assert len(ping(site.h1, "ann", site.addresses["bob"])) == 3
    site.restart(site.h1, str(python), MYOVERLAY_GUARD="warn")
    site.h1.docker(*new)
    try:
        site.h1.docker("run", "-d", "--name", "one", "--network", "new", IMAGE)
        site.h1.docker("run", "-d", "--name", "two", "--network", "new", IMAGE)
        two = site.h1.docker("inspect", "-f", "{{.NetworkSettings.Networks.new.IPAddress}}", "two").strip()
        assert len(ping(site.h1, "one", two)) == 3
        _says_so(site, "warn")
    finally:
        site.h1.docker("rm", "-f", "one", "two", check=False)
        site.h1.docker("network", "rm", "new", check=False)


def _says_so(site: Site, level: str) -> None:
    """The log, `status` with its exit code, and `doctor`, of h1."""
    assert "this host takes VXLAN from anyone" in site.plugins["h1"].words()
    status = site.say(site.h1, "status")
    assert status.returncode == 3
    assert "VXLAN is taken from anyone" in status.stdout
    found = site.finding(site.h1)
    assert found["level"] == level
    assert "Protocol not supported" in found["saw"]
    assert "`modprobe nf_tables`" in found["remedy"]
