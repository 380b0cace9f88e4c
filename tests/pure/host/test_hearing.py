"""What the kernel tells of an overlay, on paper: what is noted of it, and what is our own doing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from myoverlay.host.hearing import OURS, Event, KernelWatch
from myoverlay.kernel.changes import Change, LinkChange, PortChange, RowChange
from myoverlay.kernel.linkforms import Seen
from myoverlay.kernel.listener import Overrun
from myoverlay.kernel.neigh import SeenRow
from myoverlay.plan.rows import Rows, Written
from myoverlay.tally import Tally
from myoverlay.values import Address, Fdb, Mac, Neigh
from tests.pure.kit import Clock, endpoint, network

MAC, OTHER = Mac("02:42:0a:05:00:03"), Mac("02:42:66:66:66:66")
NEIGH, FDB = Neigh(address=Address("10.5.0.3"), mac=MAC), Fdb(mac=MAC, vtep=Address("192.0.2.2"))
OWN = endpoint("10.5.0.2")
NUMBERS = {"lo": 1, "br0": 2, "vxlan1": 3, OWN.port: 4}


def link(name: str, **changes: Any) -> Seen:
    """A link that is in use as it should be, but for `changes`."""
    usual: dict[str, Any] = {
        "index": NUMBERS.get(name, 9), "name": name, "kind": "", "mac": "", "mtu": 1450, "up": True,
        "master": None if name in ("br0", "lo") else NUMBERS["br0"], "alias": None, "far": None, "far_ns": None,
        "ipv6_off": None, "data": {}, "port": {},
    }  # fmt: skip
    return Seen(**usual | changes)


class Paper:
    """A socket that says what it is told to; an exception is raised."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.told: list[Change] | Exception = []

    def fileno(self) -> int:
        return self.fd

    def read(self, device: int) -> list[Change]:
        assert device == NUMBERS["vxlan1"]
        if isinstance(self.told, Exception):
            raise self.told
        return self.told

    def close(self) -> None:
        os.close(self.fd)


class Ground:
    """What is known of the overlay's namespace: the other host's rows are written, the container's cable is laid."""

    def __init__(self) -> None:
        self.ifindex = NUMBERS["vxlan1"]
        self.ports, self.leaving = {OWN.port}, set[str]()
        self.rows = Written(Rows(frozenset({NEIGH}), frozenset({FDB})))


class Room:
    """An overlay with one container, whose other host's rows are written."""

    def __init__(self) -> None:
        self.clock, self.socket = Clock(), Paper()
        self.ground: Any = Ground()
        self.local: Any = SimpleNamespace(
            network=network(), ground=self.ground, endpoints=lambda: [OWN], inside=lambda act, deadline: act(None)
        )
        here: Any = SimpleNamespace(all=lambda: (self.local,))
        there = {name: link(name) for name in NUMBERS}
        self.watch = KernelWatch(here, Tally(), self.clock, lambda _: (self.socket, there))
        self.events: list[Event] = []
        self.watch.on_events = lambda local, events: self.events.extend(events)
        self.watch._register()

    def hear(self, *changes: Change) -> list[tuple[str, str]]:
        """What is noted when the kernel tells this."""
        self.socket.told, self.events[:] = list(changes), []
        (ear,) = self.watch._ears.values()
        self.watch.step(ear)
        return [tuple(event) for event in self.events]


@pytest.fixture
def room() -> Iterator[Room]:
    room = Room()
    yield room
    room.watch.stop(1)


def row(value: Neigh | Fdb, gone: bool = False) -> RowChange:
    table, key, to = (
        ("arp", value.address, value.mac) if isinstance(value, Neigh) else ("fdb", value.mac, value.vtep)
    )  # fmt: skip
    return RowChange(gone, SeenRow(table, key, to, "permanent"), value)


def test_rows_lost_and_foreign_are_noted(room: Room) -> None:
    """Also the neighbour that has lost its MAC by the time that its end is told."""
    assert room.hear(row(FDB, gone=True)) == [("row gone", f"{MAC} dst 192.0.2.2")]
    gone = RowChange(True, SeenRow("arp", "10.5.0.3", "", "failed"), None)
    assert room.hear(gone) == [("row gone", f"10.5.0.3 lladdr {MAC}")]
    wrong = Neigh(address=NEIGH.address, mac=OTHER)
    assert room.hear(row(wrong)) == [("foreign row", f"10.5.0.3 lladdr {OTHER}")]
    ages = RowChange(False, SeenRow("fdb", OTHER, "192.0.2.9", "learned"), None)
    assert room.hear(ages) == [("foreign row", f"{OTHER} dst 192.0.2.9 learned")]
    unknown = RowChange(True, SeenRow("arp", "10.5.0.77", "", "failed"), None)
    assert room.hear(row(NEIGH), row(FDB), row(wrong, gone=True), unknown) == []


def test_what_we_write_is_ours_for_a_while(room: Room) -> None:
    """Told of within 5 s of our writing it, a row is our own doing; afterwards it is somebody else's."""
    room.watch.wrote(room.ground, frozenset({NEIGH, FDB}), True)
    room.watch.wrote(room.ground, frozenset({NEIGH}), False)
    gone = RowChange(True, SeenRow("arp", "10.5.0.3", "", "failed"), None)
    assert room.hear(row(FDB, gone=True), gone) == []
    room.clock.now += OURS + 1
    room.watch.wake()
    room.watch.round()
    room.watch.wrote(room.ground, frozenset({FDB}), False)  # its repair, which came before its loss was heard
    assert room.hear(row(FDB, gone=True)) == [("row gone", f"{MAC} dst 192.0.2.2")]


def test_links_in_use_are_noted_when_they_change_or_go(room: Room) -> None:
    """Down, out of the bridge, another MTU, back again, gone; a cable that we take away is not."""
    port = OWN.port
    assert room.hear(LinkChange(False, link("vxlan1"))) == []
    assert room.hear(LinkChange(False, link("vxlan1", up=False))) == [
        ("link changed", "vxlan1: down, MTU 1450, in br0")
    ]
    assert room.hear(LinkChange(False, link("vxlan1"))) == [("link changed", "vxlan1: up, MTU 1450, in br0")]
    assert room.hear(LinkChange(False, link(port, master=None))) == [("link changed", f"{port}: up, MTU 1450")]
    assert room.hear(LinkChange(True, link("vxlan1"))) == [("link gone", "vxlan1")]
    room.ground.ports.discard(port)
    room.ground.leaving.add(port)
    assert room.hear(LinkChange(False, link(port, up=False)), LinkChange(True, link(port))) == []


def test_a_link_that_is_being_made_is_no_event(room: Room) -> None:
    """It comes down and in no bridge, then in it, then up."""
    room.ground.ports.add("pnew")
    new = [link("pnew", up=False, master=None), link("pnew", up=False), link("pnew")]
    assert room.hear(*(LinkChange(False, one) for one in new)) == []
    assert room.hear(LinkChange(False, link("pnew", up=False))) == [("link changed", "pnew: down, MTU 1450, in br0")]


def test_a_containers_row_at_its_port_is_noted_when_it_goes(room: Room) -> None:
    """Its MAC at its port, not another's, and not one that comes."""
    number = NUMBERS[OWN.port]
    assert room.hear(PortChange(True, OWN.mac, number)) == [("bridge row gone", f"{OWN.mac} at {OWN.port}")]
    assert room.hear(PortChange(False, OWN.mac, number), PortChange(True, OTHER, number)) == []


def test_an_overrun_is_noted_and_a_ground_that_went_is_not_judged(room: Room) -> None:
    """What was lost cannot be told; what is told of a ground that is being taken away is our own doing."""
    (ear,) = room.watch._ears.values()
    room.socket.told = Overrun()
    room.watch.step(ear)
    assert [event.what for event in room.events] == ["overrun"]
    room.local.ground = None
    assert room.hear(row(FDB, gone=True), LinkChange(True, link("vxlan1"))) == []
    room.watch._register()
    assert not room.watch._ears
