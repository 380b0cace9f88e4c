"""What a miss of the kernel deserves: rows, a question to the store, or silence."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from myoverlay.values import Address, Mac, Miss, Peer, Record, Subnet


class Here(msgspec.Struct, frozen=True):
    """What this host's containers have, the gateway among it, and what any could have: for many questions at once."""

    addresses: frozenset[Address]
    macs: frozenset[Mac]
    version: int
    first: int
    last: int

    @classmethod
    def of(cls, local: Collection[Record], gateway: Address | None, subnet: Subnet) -> Here:
        addresses = {one.address for one in local} | ({gateway} if gateway is not None else set())
        macs = frozenset(one.mac for one in local)
        return cls(frozenset(addresses), macs, subnet.version, subnet.first, subnet.last)

    def could_be(self, address: Address) -> bool:
        """May a container have it? As `Subnet.is_host`, which works out the subnet's ends each time."""
        return self.first <= address.number <= self.last and address.version == self.version


class Answer(msgspec.Struct, frozen=True):
    """The peer is known: write its rows, and tell whoever asked. `kind`: late (should have been there) or pull."""

    peer: Peer
    kind: str


class Ask(msgspec.Struct, frozen=True):
    """Nobody here knows it: the store may."""

    address: Address | None = None
    mac: Mac | None = None


class Silence(msgspec.Struct, frozen=True):
    """Normal noise: the bridge floods every local ARP to the VXLAN port. Answering it would make a false duplicate."""

    kind: str


def decide(
    miss: Miss,
    peers: Mapping[Address, Peer],
    macs: Mapping[Mac, Peer],
    here: Here,
    eager: bool,
) -> Answer | Ask | Silence:
    """What to do about one miss, from memory alone."""
    if miss.address is not None:
        if miss.address in here.addresses:
            return Silence("local")
        peer = peers.get(miss.address)
        if peer is None and not here.could_be(miss.address):
            return Silence("unknown")
    else:
        if miss.mac in here.macs:
            return Silence("local")
        peer = macs.get(miss.mac) if miss.mac is not None else None
    if peer is not None:
        return Answer(peer, "late" if eager else "pull")
    return Ask(address=miss.address, mac=miss.mac)
