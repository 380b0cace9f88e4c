"""Hosts whose containers are found as Docker's are, by the path of their sandbox, and what is done to their path."""

from __future__ import annotations

import json
import subprocess
from typing import Any, NamedTuple

from myoverlay.kernel import netns
from myoverlay.kernel.netns import Namespace
from myoverlay.values import Fdb, Mac, Neigh
from tests.kernel.host.hosts import Container, DockerNetwork, Host, Hosts
from tests.kernel.host.tools import in_parallel, ip, run_in, until

#: What nobody has.
WRONG_MAC, WRONG_VTEP = Mac("02:42:66:66:66:66"), "172.30.0.99"


class Looked(Host):
    """A host that says at Join where the container's namespace will be, as Docker does."""

    def join(self, network: DockerNetwork, endpoint: str) -> str:
        sandbox = str(self.hosts.folder / "ns" / f"c{endpoint[:8]}-on-h{self.number}")
        answer = self.call(
            "NetworkDriver.Join", NetworkID=network.id, EndpointID=endpoint, SandboxKey=sandbox, Options={}
        )
        return str(answer["InterfaceName"]["SrcName"])


def looked_at(hosts: Hosts, count: int = 2, **environ: str) -> list[Looked]:
    """So many hosts with a network on one overlay, that repair nothing by themselves."""
    made = [hosts.admit(lambda number: Looked(hosts, number, 1500, environ)) for _ in range(count)]
    in_parallel(*[lambda host=host: host.create_network() for host in made])
    for host in made:
        host.daemon.reconciler.stop(5)
    return made


def trace(asker: Host, a: Container, b: Container) -> dict[str, Any]:
    return asker.call("Control.Trace", a=str(a.address), b=str(b.address))


def first(found: dict[str, Any]) -> dict[str, Any]:
    """The hop that is named; {} where none is."""
    return dict(found["steps"][found["first"]]) if found["first"] is not None else {}


def told(found: dict[str, Any]) -> str:
    """All hops in lines, for whoever sees a test fail."""
    return json.dumps(found, indent=1, ensure_ascii=False)


class Side(NamedTuple):
    """One end of the path, from where somebody spoils it: the container here, and the one it talks to."""

    host: Looked
    own: Container
    other: Container

    @property
    def port(self) -> str:
        return f"p{self.own.endpoint[:12]}"

    def inside(self, *words: str) -> None:
        """A command in the container's namespace."""
        run_in(self.own.ns, *words)

    def below(self, *words: str) -> None:
        """A command in the overlay namespace."""
        with self.host.overlay() as ns:
            run_in(ns, *words)

    def home(self, *words: str) -> None:
        """A command on the host."""
        run_in(self.host.ns, *words)

    def nft(self, where: str, rules: str) -> None:
        def load(ns: Namespace) -> None:
            run_in(ns, "nft", "-f", "-", text=rules)

        if where == "home":
            load(self.host.ns)
        else:
            with self.host.overlay() as ns:
                load(ns)

    def forget_mtu(self) -> None:
        """A small MTU that the heartbeat's namespace learned; the kernel would keep it for 10 minutes."""
        with netns.open_path(self.host.run_folder / "netns" / "_probe") as ns:
            run_in(ns, "ip", "route", "flush", "cache")

    def device(self, vni: int, port: int) -> None:
        """The VXLAN device made anew by somebody, with its rows: all as it was but for VNI and port."""
        network = self.host.local().network
        neigh, fdb = [row for row in self.other.rows if isinstance(row, Neigh)], self.other.rows[1]
        assert isinstance(fdb, Fdb)
        with self.host.overlay() as ns:
            ip(ns, "link del vxlan1")
            ip(
                self.host.ns,
                f"link add vxlan1 type vxlan id {vni} dstport {port} local {network.vtep}"
                " nolearning proxy l2miss l3miss",
                f"link set vxlan1 netns {ns.path}",
            )
            ip(ns, "link set vxlan1 mtu 1450 master br0", "link set vxlan1 up")
            run_in(
                ns,
                "ip",
                "neigh",
                "replace",
                neigh[0].address,
                "lladdr",
                neigh[0].mac,
                "dev",
                "vxlan1",
                "nud",
                "permanent",
            )
            run_in(ns, "bridge", "fdb", "replace", fdb.mac, "dev", "vxlan1", "self", "permanent", "dst", fdb.vtep)


def apply(remedy: str) -> None:
    """Do what a trace printed, the first of what it offers."""
    words = remedy.partition(";")[0].split()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{remedy}: {done.stderr}"


def know_each_other(*sides: Side) -> None:
    for side in sides:
        until(lambda side=side: side.host.knows(side.other))
