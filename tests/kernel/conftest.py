"""Hosts, overlays and containers out of nothing but namespaces, which leave nothing behind."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from myoverlay.kernel import netns
from myoverlay.kernel.links import Links
from myoverlay.kernel.neigh import Tables
from myoverlay.kernel.netns import Namespace
from myoverlay.values import Address, Bridge, Fdb, Mac, Neigh, Veth, Vxlan

if os.geteuid() != 0:
    collect_ignore_glob = ["test_*"]


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Ask again and again until the answer is true; fail after so many seconds."""
    deadline = soon(seconds)
    pause = threading.Event()
    while not (answer := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        pause.wait(0.002)
    return answer


def open_fds() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def library(ns: Namespace) -> Iterator[IPRoute]:
    """pyroute2 inside a namespace, for arranging and as the oracle."""
    with IPRoute(use_socket=ns.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE)) as ipr:
        yield ipr


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test leaves an open fd or a thread behind."""
    fds, threads = open_fds(), threading.active_count()
    yield
    until(lambda: open_fds() <= fds and threading.active_count() <= threads)


@pytest.fixture
def spaces(tmp_path: Path) -> Iterator[Callable[[str], Namespace]]:
    """Makes namespaces by name below tmp_path, and removes them all."""
    made: list[Namespace] = []

    def make(name: str) -> Namespace:
        made.append(netns.create(tmp_path / "ns" / name))
        return made[-1]

    yield make
    for ns in reversed(made):
        ns.close()
        assert ns.path is not None
        netns.delete(ns.path)
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


@pytest.fixture
def host(spaces: Callable[[str], Namespace]) -> Namespace:
    return spaces("host")


@pytest.fixture
def links(host: Namespace) -> Iterator[Links]:
    with Links(host) as door:
        yield door


@pytest.fixture
def overlay(spaces: Callable[[str], Namespace]) -> Namespace:
    """An empty overlay namespace."""
    return spaces("overlay")


def bridge(**changes: Any) -> Bridge:
    usual = {
        "name": "br0",
        "mac": Mac("02:42:0a:05:00:01"),
        "mtu": 1450,
        "address": Address("10.5.0.1"),
        "prefixlen": 24,
    }
    return Bridge(**usual | changes)


def vxlan(**changes: Any) -> Vxlan:
    usual = {"name": "vxlan0", "bridge": "br0", "vni": 7001, "port": 4790, "local": Address("192.0.2.1"), "mtu": 1450}
    return Vxlan(**usual | changes)


def veth(number: int = 2, **changes: Any) -> Veth:
    mac = Mac.of(Address(f"10.5.0.{number}"))
    return Veth(**{"port": f"p{number}", "link": f"mo{number}", "bridge": "br0", "mac": mac, "mtu": 1450} | changes)


@dataclass
class Container:
    """A namespace with one end of a veth in it, as Docker would leave it."""

    ns: Namespace
    address: Address
    mac: Mac

    def udp(self) -> socket.socket:
        """A UDP socket on port 5000 of the container, with a time-out."""
        family = socket.AF_INET if self.address.version == 4 else socket.AF_INET6
        sock = self.ns.socket(family, socket.SOCK_DGRAM)
        sock.settimeout(5)
        sock.bind((self.address, 5000))
        return sock

    def tap(self) -> socket.socket:
        """Hears every frame that reaches the container's interface."""
        sock = self.ns.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sock.settimeout(5)
        sock.bind(("eth0", 3))
        return sock


class Host:
    """A Docker host in small: underlay namespace, overlay namespace, links, tables."""

    def __init__(self, name: str, vtep: str, make: Callable[[str], Namespace], stack: ExitStack) -> None:
        self.name, self.vtep = name, Address(vtep)
        self._make, self._stack = make, stack
        self.home = make(name)
        self.overlay = make(f"{name}-overlay")
        self.links = stack.enter_context(Links(self.home))
        self.tables: Tables

    def build(self, gateway: str = "10.5.0.1", length: int = 24) -> None:
        address = Address(gateway)
        self.links.ensure(self.overlay, bridge(address=address, prefixlen=length), deadline=soon())
        self.links.ensure(self.overlay, vxlan(local=self.vtep), deadline=soon())
        index = self.links.ifindex(self.overlay, "vxlan0", deadline=soon())
        assert index is not None
        self.tables = self._stack.enter_context(Tables(self.overlay, index))

    def container(self, number: int, address: str | None = None, length: int = 24) -> Container:
        """A veth with its end moved into a new namespace and set up there."""
        cable = veth(number)
        self.links.ensure(self.overlay, cable, deadline=soon())
        ns = self._make(f"{self.name}-c{number}")
        with library(self.home) as home:
            (index,) = home.link_lookup(ifname=cable.link)
            home.link("set", index=index, net_ns_fd=ns.fd)
        place = Address(address or f"10.5.0.{number}")
        with library(ns) as inside:
            (index,) = inside.link_lookup(ifname=cable.link)
            inside.link("set", index=index, ifname="eth0")
            inside.link("set", index=index, state="up")
            flags = {"IFA_FLAGS": 2} if place.version == 6 else {}
            inside.addr("add", index=index, address=place, prefixlen=length, **flags)
        until(lambda: self._forwards(cable.port))
        return Container(ns, place, cable.mac)

    def _forwards(self, port: str) -> bool:
        """The kernel's link watch opens a port some time after its far end came up (net/core/link_watch.c)."""
        with library(self.overlay) as inside:
            (message,) = inside.link("get", ifname=port)
            flags = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")
            return bool(flags.get_attr("IFLA_BRPORT_STATE") == 3)

    def knows(self, *others: tuple[Container, Host]) -> None:
        rows: list[Fdb | Neigh] = []
        for container, there in others:
            rows += [Fdb(mac=container.mac, vtep=there.vtep), Neigh(address=container.address, mac=container.mac)]
        assert self.tables.set(rows) == []


@pytest.fixture
def two_hosts(spaces: Callable[[str], Namespace]) -> Iterator[tuple[Host, Host]]:
    """Two hosts whose underlay is one veth, each with an overlay built."""
    with ExitStack() as stack:
        pair = Host("h1", "192.0.2.1", spaces, stack), Host("h2", "192.0.2.2", spaces, stack)
        with library(pair[0].home) as first, library(pair[1].home) as second:
            first.link("add", ifname="eth0", kind="veth", peer={"ifname": "eth0", "net_ns_fd": pair[1].home.fd})
            for ipr, one in ((first, pair[0]), (second, pair[1])):
                (index,) = ipr.link_lookup(ifname="eth0")
                ipr.link("set", index=index, state="up")
                ipr.addr("add", index=index, address=one.vtep, prefixlen=24)
        for one in pair:
            one.build()
        yield pair
        for one in pair:
            one.links.remove(one.overlay, "vxlan0", deadline=soon())
