"""What is made by hand: a bridge and a VXLAN device that knows the one other host; and the tutorial's network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.names import HAND, TUTORIAL
from lab import places
from lab.engine import EngineHost
from lab.lab import Lab
from lab.processes import wait_for

#: What a contestant's namespaces are called on its host, its VNI and the first three parts of its addresses.
_NAME = {HAND: "hand", TUTORIAL: "taught"}
_VNI = {HAND: 42, TUTORIAL: 43}
_NET = {HAND: "10.23.0", TUTORIAL: "10.24.0"}
_RESOLVER = places.REPOSITORY / "examples" / "tutorial_arpd.py"
RECORDS = "demo-bench"


def netns(contestant: str) -> str:
    """The namespace that stands for the container."""
    return f"/run/netns/{_NAME[contestant]}"


def address(contestant: str, number: int) -> str:
    """The address of the container of h1 (2) or h2 (3)."""
    return f"{_NET[contestant]}.{number}"


def mac(contestant: str, number: int) -> str:
    """And its MAC."""
    return f"02:42:0a:{_VNI[contestant]:02x}:00:{number:02x}"


def make(contestant: str, host: EngineHost, other: EngineHost, number: int) -> None:
    """Bridge, device and container on one host, as docs/by-hand.md makes them. The hand-made device knows the other
    host; the tutorial's knows nobody and asks."""
    inside, name = f"{_NAME[contestant]}-overlay", _NAME[contestant]
    kind = f"local {host.address} remote {other.address}" if contestant == HAND else "learning proxy l2miss l3miss"
    cable = f"address {mac(contestant, number)}"
    for line in (
        f"netns add {inside}", f"netns add {name}",
        f"link add vxlan1 netns {inside} mtu 1450 type vxlan id {_VNI[contestant]} dstport 4789 {kind}",
        f"-n {inside} link add br0 type bridge",
        f"-n {inside} link set vxlan1 master br0 up",
        f"link add veth1 netns {inside} mtu 1450 type veth peer name eth0 netns {name} mtu 1450 {cable}",
        f"-n {inside} link set veth1 master br0 up",
        f"-n {inside} link set br0 up",
        f"-n {name} address add {address(contestant, number)}/24 dev eth0",
        f"-n {name} link set lo up", f"-n {name} link set eth0 up",
    ):  # fmt: skip
        host.run(["ip", *line.split()])


def forget(host: EngineHost, number: int) -> None:
    """The tutorial's tables and its container's, as they are before anybody was talked to."""
    inside, name = f"{_NAME[TUTORIAL]}-overlay", _NAME[TUTORIAL]
    there = mac(TUTORIAL, 5 - number)
    host.run(["ip", "-n", name, "neigh", "flush", "dev", "eth0"])
    host.run(["ip", "-n", inside, "neigh", "flush", "dev", "vxlan1", "nud", "permanent"])
    host.run(["bridge", "-n", inside, "fdb", "del", there, "dev", "vxlan1", "self"], check=False)


@contextmanager
def taught(lab: Lab, hosts: tuple[EngineHost, EngineHost]) -> Iterator[None]:
    """The tutorial's script on both hosts, its records in Consul. With the block they end; the links stay."""
    running = []
    try:
        for number, host in enumerate(hosts, 2):
            make(TUTORIAL, host, hosts[3 - number], number)
            lab.consul.put(f"{RECORDS}/arp/{address(TUTORIAL, number)}", mac(TUTORIAL, number))
            lab.consul.put(f"{RECORDS}/fib/{mac(TUTORIAL, number)}", host.address)
            log = host.folder / "tutorial.log"
            with log.open("wb") as said:
                argv = [sys.executable, str(_RESOLVER), lab.consul.url, RECORDS, f"{_NAME[TUTORIAL]}-overlay", "vxlan1"]
                running.append(host.popen(argv, stdout=said, stderr=said))
            wait_for(f"the tutorial's script on {host.name}", 20, lambda: "listening to" in log.read_text())  # noqa: B023
        yield
    finally:
        for process in running:
            process.terminate()
            process.wait(10)
