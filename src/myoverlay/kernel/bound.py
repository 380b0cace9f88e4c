"""Who a container may be on its overlay: a table of the overlay namespace's bridge that drops frames under other names.

prerouting of family bridge: what comes out of a container's port must have the endpoint's MAC and address, in IP as in
ARP; a neighbour advertisement must be of its own address, and it advertises no router. Other protocols need its MAC.
What comes by VXLAN was looked at where it was sent. One look-up a packet: port, MAC and address are one key. Of IPv6
link-local addresses only the MAC is looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from myoverlay.fence import Bound
from myoverlay.kernel import nft
from myoverlay.kernel.kept import Kept
from myoverlay.values import Address, Mac

TABLE = nft.Table(nft.BRIDGE, "myoverlay")
PRIORITY = -300
#: The port that all remote frames come by: the VXLAN device (plan/shape.py).
TUNNEL = "vxlan1"
_IFNAME, _ETHER, _IPV4, _IPV6 = 41, 9, 7, 8
_IP, _ARP, _IP6 = (struct.pack("!H", kind) for kind in (0x0800, 0x0806, 0x86DD))
_ICMPV6 = bytes((58,))
#: Neighbour discovery (RFC 4861): an advertisement of one's own; router advertisement and redirect.
_ADVERTISEMENT, _FOR_OTHERS = 136, (134, 137)
#: The frame's source; the source of IP and IPv6, and how that begins; ARP's sender; neighbour discovery's type, target.
_SOURCE = (nft.LINK, 6, 6)
_SOURCE4, _SOURCE6, _SOURCE_BEGINS = (nft.NETWORK, 12, 4), (nft.NETWORK, 8, 16), (nft.NETWORK, 8, 2)
_SENDER, _SENDER4 = (nft.NETWORK, 8, 6), (nft.NETWORK, 14, 4)
_KIND, _TARGET, _TARGET_BEGINS = (nft.TRANSPORT, 0, 1), (nft.TRANSPORT, 8, 16), (nft.TRANSPORT, 8, 2)
_LINK_LOCAL = b"\xfe\x80"
#: A key's places: the port's name in the first four registers, the MAC in two, then the address.
_MAC_AT, _ADDRESS_AT = nft.R32 + 4, nft.R32 + 6
_SETS = {
    "macs": nft.Form(_IFNAME << 6 | _ETHER, 24, b""),
    "bound4": nft.Form((_IFNAME << 6 | _ETHER) << 6 | _IPV4, 28, b""),
    "bound6": nft.Form((_IFNAME << 6 | _ETHER) << 6 | _IPV6, 40, b""),
}


def _is(mac: tuple[int, int, int], which: str, address: tuple[int, int, int] | None = None) -> tuple[bytes, ...]:
    """Port, this MAC and, if any, this address are an endpoint's."""
    more = (nft.payload(*address, _ADDRESS_AT),) if address is not None else ()
    return (nft.meta(nft.IIFNAME), nft.payload(*mac, _MAC_AT), *more, nft.lookup(which))


def _rules() -> Iterator[tuple[str, tuple[bytes, ...]]]:
    accept, drop = nft.verdict(nft.ACCEPT), (nft.count("spoofed"), nft.verdict(nft.DROP))
    ip, arp, ip6 = ((nft.meta(nft.PROTOCOL), nft.compare(kind)) for kind in (_IP, _ARP, _IP6))
    known = _is(_SOURCE, "macs")
    discovery = (*ip6, nft.meta(nft.L4PROTO), nft.compare(_ICMPV6), nft.payload(*_KIND))
    advertised = (*discovery, nft.compare(bytes((_ADVERTISEMENT,))))
    yield "enters", (nft.meta(nft.IIFNAME), nft.compare(nft.name(TUNNEL)), accept)
    yield "enters", (*ip, *_is(_SOURCE, "bound4", _SOURCE4), accept)
    yield "enters", (*arp, *_is(_SENDER, "bound4", _SENDER4), *known, accept)
    # Who asks whether an address is free has none yet (RFC 5227).
    yield "enters", (*arp, *_is(_SENDER, "macs"), nft.payload(*_SENDER4), nft.compare(bytes(4)), *known, accept)
    for kind in _FOR_OTHERS:
        yield "enters", (*discovery, nft.compare(bytes((kind,))), *drop)
    yield "enters", (*advertised, *_is(_SOURCE, "bound6", _TARGET), accept)
    yield "enters", (*advertised, nft.payload(*_TARGET_BEGINS), nft.compare(_LINK_LOCAL), *known, accept)
    yield "enters", (*advertised, *drop)
    yield "enters", (*ip6, *_is(_SOURCE, "bound6", _SOURCE6), accept)
    yield "enters", (*ip6, nft.payload(*_SOURCE_BEGINS), nft.compare(_LINK_LOCAL), *known, accept)
    yield "enters", (*ip6, nft.payload(*_SOURCE6), nft.compare(bytes(16)), *known, accept)
    others = [nft.compare(kind, nft.UNEQUAL) for kind in (_IP, _ARP, _IP6)]
    yield "enters", (nft.meta(nft.PROTOCOL), *others, *known, accept)
    yield "enters", drop


class BoundTable(Kept[frozenset[Bound]]):
    """The table of one overlay namespace. Safe from several threads."""

    table = TABLE
    sets = _SETS
    counters = ("spoofed",)
    chains = ()
    hooks = (("enters", nft.PREROUTING, PRIORITY),)
    rules = tuple(_rules())

    def _keys(self, _door: nft.Door, held: frozenset[Bound]) -> Iterator[tuple[str, list[bytes]]]:
        keys = [(nft.name(one.port) + one.mac.packed + b"\0\0", one.address.packed) for one in held]
        yield "macs", [port for port, _ in keys]
        yield "bound4", [port + address for port, address in keys if len(address) == 4]
        yield "bound6", [port + address for port, address in keys if len(address) == 16]

    def _read(self, door: nft.Door) -> frozenset[Bound]:
        macs = set(door.keys(TABLE, "macs", _SETS["macs"].length))
        keys = [key for name in ("bound4", "bound6") for key in door.keys(TABLE, name, _SETS[name].length)]
        return frozenset(
            Bound(nft.word(key[:16]), Mac.unpack(key[16:22]), Address.unpack(key[24:]))
            for key in keys
            if key[:24] in macs
        )
