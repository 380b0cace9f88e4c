"""What the guard lets through, as a value: the plan says what it should be, the kernel what it is."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from myoverlay.values import Address, Mac


class Pair(NamedTuple):
    """What makes a VXLAN datagram one of an overlay: its UDP port and its VNI."""

    port: int
    vni: int


class At(NamedTuple):
    """A VTEP of that pair."""

    pair: Pair
    vtep: Address


class Way(NamedTuple):
    """How nearly all datagrams come: from a live VTEP to this host's, by the interface that this one lies on."""

    pair: Pair
    source: Address
    vtep: Address
    door: str


class Fence(msgspec.Struct, frozen=True):
    """The guard's sets.

    `ports` and `pairs` are ours to judge, `doors` the interfaces that VTEPs of this host lie on, `own` this host's
    VTEPs, `live` those that may send to them, and `ways` the same in one: who to whom, and by what.
    """

    ports: frozenset[int] = frozenset()
    pairs: frozenset[Pair] = frozenset()
    doors: frozenset[str] = frozenset()
    own: frozenset[At] = frozenset()
    live: frozenset[At] = frozenset()
    ways: frozenset[Way] = frozenset()

    def without(self, other: Fence) -> Fence:
        """What is here and not there."""
        return Fence(
            self.ports - other.ports, self.pairs - other.pairs, self.doors - other.doors, self.own - other.own,
            self.live - other.live, self.ways - other.ways,
        )  # fmt: skip

    def beside(self, other: Fence) -> Fence:
        """Both together."""
        return Fence(
            self.ports | other.ports, self.pairs | other.pairs, self.doors | other.doors, self.own | other.own,
            self.live | other.live, self.ways | other.ways,
        )  # fmt: skip

    def __len__(self) -> int:
        return sum(map(len, (self.ports, self.pairs, self.doors, self.own, self.live, self.ways)))

    def __bool__(self) -> bool:
        return len(self) > 0


class Dropped(NamedTuple):
    """Datagrams that the guard kept out, since its table was laid."""

    unknown: int = 0
    door: int = 0
    local: int = 0


class Bound(NamedTuple):
    """Who may come out of a port of the bridge."""

    port: str
    mac: Mac
    address: Address
