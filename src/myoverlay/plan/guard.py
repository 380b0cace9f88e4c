"""Which VXLAN datagrams a host takes: those of its overlays' live VTEPs, each only for its own overlay.

A plain VXLAN device takes frames from whoever can send a datagram. What is not of a (port, VNI) pair of ours is left
alone: Swarm or flannel may share the port.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Protocol

import msgspec

from myoverlay.fence import At, Bound, Fence, Pair, Way
from myoverlay.values import Address, Endpoint, Fdb, HostId, HostList, Network, Peer

#: How a host without nf_tables, or one that is told so, is treated.
ON, WARN, OFF = "on", "warn", "off"


class Held(Protocol):
    """A host's list as the store has it."""

    @property
    def value(self) -> HostList: ...


class Cover(msgspec.Struct, frozen=True):
    """One tunnel of this host: its pair, its VTEP, the interface that lies on, and who may send to it."""

    pair: Pair
    vtep: Address
    door: str
    live: frozenset[Address] = frozenset()


def cover(network: Network, live: Iterable[Address] = ()) -> Cover:
    pair = Pair(network.definition.port, network.definition.vni)
    return Cover(pair, network.vtep, network.underlay, frozenset(live))


def fence_of(covers: Iterable[Cover]) -> Fence:
    """All that the guard should hold. A host's own VTEP sends nothing to itself."""
    ports, pairs, doors = set[int](), set[Pair](), set[str]()
    own, ways, live = set[At](), set[Way](), set[At]()
    for one in covers:
        ports.add(one.pair.port)
        pairs.add(one.pair)
        doors.add(one.door)
        own.add(At(one.pair, one.vtep))
        others = [vtep for vtep in one.live if vtep != one.vtep]
        live.update(At(one.pair, vtep) for vtep in others)
        ways.update(Way(one.pair, vtep, one.vtep, one.door) for vtep in others if vtep.version == one.vtep.version)
    return Fence(
        frozenset(ports), frozenset(pairs), frozenset(doors), frozenset(own), frozenset(live), frozenset(ways)
    )  # fmt: skip


def bound(endpoints: Iterable[Endpoint]) -> frozenset[Bound]:
    """Who may come out of which port."""
    return frozenset(Bound(one.port, one.mac, one.address) for one in endpoints)


def live_on(fence: Fence, pair: Pair) -> frozenset[Address]:
    """Who may send on a pair, by what is there."""
    return frozenset(at.vtep for at in fence.live if at.pair == pair)


def behind(rows: Iterable[Fdb]) -> frozenset[Address]:
    """The VTEPs that rows lead to: whoever is sent to may answer."""
    return frozenset(row.vtep for row in rows)


def live(lists: Mapping[HostId, Held], outsiders: Collection[Peer]) -> frozenset[Address]:
    """The VTEPs of an overlay's other hosts, by their lists, and of its outsiders."""
    vteps = {held.value.vtep for held in lists.values()}
    vteps.update(peer.vtep for peer in outsiders)
    return frozenset(filter(_could_be, vteps))


@lru_cache(maxsize=4096)
def _could_be(vtep: Address) -> bool:
    return vtep.is_unicast


def remedy(code: int) -> str:
    """What helps where the kernel refused a table with that errno."""
    if code in (errno.EPERM, errno.EACCES):
        return "give the plugin CAP_NET_ADMIN"
    return "load the kernel's nf_tables"
