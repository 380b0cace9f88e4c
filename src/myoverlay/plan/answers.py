"""What a miss of the kernel deserves: rows, a question to the store, or silence."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from myoverlay.values import Address, Mac, Miss, Peer, Record, Subnet


class Here(msgspec.Struct, frozen=True):
    """What this host's containers have: for many questions at once, each of which is looked up in it."""

    addresses: frozenset[Address]
    macs: frozenset[Mac]

    @classmethod
    def of(cls, local: Collection[Record]) -> Here:
        return cls(frozenset(one.address for one in local), frozenset(one.mac for one in local))


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
    gateway: Address | None,
    subnet: Subnet,
    eager: bool,
) -> Answer | Ask | Silence:
    """What to do about one miss, from memory alone."""
    if miss.address is not None:
        if miss.address == gateway or miss.address in here.addresses:
            return Silence("local")
        peer = peers.get(miss.address)
        if peer is None and not subnet.is_host(miss.address):
            return Silence("unknown")
    else:
        if miss.mac in here.macs:
            return Silence("local")
        peer = macs.get(miss.mac) if miss.mac is not None else None
    if peer is not None:
        return Answer(peer, "late" if eager else "pull")
    return Ask(address=miss.address, mac=miss.mac)
