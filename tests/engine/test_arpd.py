"""Overlays made by hand on bare hosts, and their resolvers: ours, and the tutorial's own way beside it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab import places
from lab.lab import HostSpec, Lab
from tests.engine.conftest import BOTH, Cluster, Nets, eventually, ping
from tests.engine.test_outsider import CLEAR, NAMESPACE, OPTIONS

SCRIPT = places.REPOSITORY / "examples" / "tutorial_arpd.py"
#: The first ping may take so long with both resolvers ours and on miss only, ms: four look-ups, two ARP replies.
FIRST = 20.0
#: ICMP echo as `ping -i` sends it, all answers waited for: arguments address, count and interval; `number ms` a line.
PING = """
import os, socket, struct, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
def sum16(b):
    t = sum(struct.unpack(f"!{len(b) // 2}H", b))
    t = (t >> 16) + (t & 0xFFFF)
    return ~(t + (t >> 16)) & 0xFFFF
me, count, gap = os.getpid() & 0xFFFF, int(sys.argv[2]), float(sys.argv[3])
sent, open_ = {}, set(range(count))
start = time.monotonic()
while open_ and (now := time.monotonic()) < start + count * gap + 1.5:
    n = len(sent)
    if n < count and now >= start + n * gap:
        body = struct.pack("!HH", me, n)
        sent[n] = time.monotonic()
        s.sendto(struct.pack("!BBH", 8, 0, sum16(b"\\x08\\0\\0\\0" + body)) + body, (sys.argv[1], 0))
    s.settimeout(0.001)
    try:
        data = s.recv(200)
    except OSError:
        continue
    if data[20] == 0 and struct.unpack("!H", data[24:26])[0] == me:
        n = struct.unpack("!H", data[26:28])[0]
        open_.discard(n)
        print(n, (time.monotonic() - sent[n]) * 1000)
"""


class Bare:
    """A bare host with the tutorial's overlay and one guest on it, its two keys in Consul."""

    def __init__(self, lab: Any, host: Any, address: str) -> None:
        self.lab, self.host, self.address = lab, host, address
        self.mac = "02:42:" + ":".join(f"{int(part):02x}" for part in address.split("."))
        self.log = Path(host.folder / "arpd.log")
        self.process: subprocess.Popen[Any] | None = None

    def make(self) -> None:
        """Everything from nothing, by `ip` and `bridge` alone."""
        self.host.run(["sh", "-c", CLEAR])
        shell = NAMESPACE.replace("02:42:c0:a8:00:03", self.mac).replace("192.168.0.3", self.address)
        self.host.run(["sh", "-ec", shell])
        self.lab.consul.put(f"demo-1/arp/{self.address}", self.mac.encode())
        self.lab.consul.put(f"demo-1/fib/{self.mac}", self.host.address.encode())

    def clear(self) -> None:
        for key in (f"demo-1/arp/{self.address}", f"demo-1/fib/{self.mac}"):
            self.lab.consul.delete(key)
        self.host.run(["sh", "-c", CLEAR])

    @contextmanager
    def resolving(self, argv: list[str], ready: str) -> Iterator[None]:
        """A resolver that listens; it ends by SIGTERM."""
        environment = {"PYTHONPATH": str(places.REPOSITORY / "src")}
        with self.log.open("w") as log:
            process = self.host.popen([sys.executable, *argv], env=environment, stdout=log, stderr=log)
        try:
            eventually(f"{argv[:3]} listens", lambda: ready in self.words())
            yield
            assert process.poll() is None, self.words()
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(10)
        assert "arpd" not in argv or code == 0, self.words()

    def ours(self, *words: str) -> Any:
        argv = ["-m", "myoverlay", "arpd", "--consul", self.lab.consul.url, "--records", "demo-1", *words]
        return self.resolving(argv, "resolving for vxlan1 in overlay-ns")

    def script(self) -> Any:
        return self.resolving([str(SCRIPT), self.lab.consul.url, "demo-1", "overlay-ns", "vxlan1"], "listening to")

    def words(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def ping(self, address: str, count: int = 3, gap: float = 0.3) -> dict[int, float]:
        """Round trips in ms by number; a number that is missing was lost."""
        argv = ["ip", "netns", "exec", "guest", sys.executable, "-c", PING, address, str(count), str(gap)]
        lines = self.host.run(argv).splitlines()
        return {int(number): float(ms) for number, _, ms in (line.partition(" ") for line in lines)}

    def rows(self) -> str:
        shell = "ip neigh show nud permanent dev vxlan1; bridge fdb show dev vxlan1"
        return str(self.host.run(["ip", "netns", "exec", "overlay-ns", "sh", "-c", shell]))


@pytest.fixture(scope="module")
def two_bare() -> Iterator[tuple[Bare, Bare]]:
    with Lab("arpd", [HostSpec("h1", engine=None), HostSpec("h2", engine=None)], consul=True) as lab:
        yield Bare(lab, lab.hosts["h1"], "192.168.0.2"), Bare(lab, lab.hosts["h2"], "192.168.0.3")


@pytest.fixture
def pair(two_bare: tuple[Bare, Bare]) -> Iterator[tuple[Bare, Bare]]:
    for bare in two_bare:
        bare.make()
    yield two_bare
    for bare in two_bare:
        bare.clear()


def told(what: str, trips: dict[int, float], count: int = 3) -> str:
    first = f"first answer after {trips[min(trips)]:.1f} ms (number {min(trips) + 1})" if trips else "no answer"
    return f"{what}: {first}, {count - len(trips)} of {count} lost"


def test_ours_and_the_tutorials_reach_each_other(pair: tuple[Bare, Bare]) -> None:
    """Our resolver on one host, the tutorial's on the other: pings go both ways, whoever begins."""
    ours, theirs = pair
    with ours.ours(), theirs.script():
        eventually("rows ahead of any question", lambda: theirs.mac in ours.rows())
        for one, other in ((ours, theirs), (theirs, ours)):
            trips = eventually("answers", lambda one=one, other=other: one.ping(other.address))
            print(told(f"{'ours' if one is ours else 'the script'} begins", trips))
        assert len(ours.ping(theirs.address)) == len(theirs.ping(ours.address)) == 3
    assert theirs.mac in ours.rows(), "rows stay when the resolver has ended"
    assert len(ours.ping(theirs.address)) == 3


def test_first_pings_side_by_side(two_bare: tuple[Bare, Bare]) -> None:
    """On miss only: within 20 ms and none lost with ours; about a second with the tutorial's, and packets lost."""
    firsts = []
    for bare in two_bare:
        bare.make()
    with two_bare[0].script(), two_bare[1].script():
        theirs = two_bare[0].ping(two_bare[1].address, gap=1.0)
    for _ in range(5):
        for bare in two_bare:
            bare.clear()
            bare.make()
        with two_bare[0].ours("--on-miss-only"), two_bare[1].ours("--on-miss-only"):
            assert two_bare[1].mac not in two_bare[0].rows()
            trips = two_bare[0].ping(two_bare[1].address)
        assert len(trips) == 3, (trips, two_bare[0].words(), two_bare[1].words())
        firsts.append(trips[0])
    for bare in two_bare:
        bare.clear()
    print(told("the tutorial's on both hosts", theirs))
    print(f"ours, --on-miss-only, on both: first answers after {', '.join(f'{ms:.1f}' for ms in sorted(firsts))} ms")
    assert sorted(firsts)[2] <= FIRST
    assert theirs.get(0, 9999.0) > 500
    assert len(theirs) < 3


def test_consul_that_comes_back(pair: tuple[Bare, Bare]) -> None:
    """Consul stops and starts: pings flow all the while, one sentence says so, and new keys are followed again."""
    ours, theirs = pair
    consul = ours.lab.consul
    with ours.ours(), theirs.ours():
        eventually("rows", lambda: theirs.mac in ours.rows() and ours.mac in theirs.rows())
        consul.stop()
        eventually("it is said", lambda: "rows stay as they are" in ours.words())
        assert len(ours.ping(theirs.address)) == 3
        consul.start()
        consul.put("demo-1/arp/192.168.0.9", b"02:42:c0:a8:00:09")
        consul.put("demo-1/fib/02:42:c0:a8:00:09", theirs.host.address.encode())
        eventually("the new key's row", lambda: "192.168.0.9" in ours.rows(), 30)
        assert ours.words().count("rows stay as they are") == 1
        assert theirs.mac in ours.rows()
    for key in ("demo-1/arp/192.168.0.9", "demo-1/fib/02:42:c0:a8:00:09"):
        consul.delete(key)


def test_a_plugin_host_and_the_tutorials_script(cluster: Cluster, nets: Nets) -> None:
    """A container of the plugin and a guest of the script's host reach each other through the same keys."""
    bare = Bare(cluster.lab, cluster.h3, "192.168.0.3")
    bare.make()
    try:
        nets.create(cluster.h2, "demo", *BOTH, "--subnet", "192.168.0.0/24", *OPTIONS)
        address = nets.run(cluster.h2, "ours", "--network", "demo")
        with bare.script():
            begun = time.monotonic()
            first = eventually("the guest's first answer", lambda: bare.ping(address))
            print(told("the script's guest to the plugin's container", first), f"({time.monotonic() - begun:.1f} s)")
            eventually("answers to the container", lambda: len(ping(cluster.h2, "ours", "192.168.0.3")) == 3)
            assert len(bare.ping(address)) == 3
    finally:
        bare.clear()
