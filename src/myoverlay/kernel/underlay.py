"""Questions about addresses and routes, the host's above all: which address is its VTEP, which route carries how much.

By struct. Sources: rtnetlink(7), include/uapi/linux/{if_addr,rtnetlink}.h, net/ipv4/fib_frontend.c.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from myoverlay.errors import KernelRefused, Refused
from myoverlay.kernel.linkforms import Seen
from myoverlay.kernel.rtnetlink import Request, Wire, attribute, attributes
from myoverlay.values import Address, Subnet

RTM_GETADDR, RTM_GETROUTE = 22, 26
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
#: Secondary (IPv6: temporary), DAD failed, deprecated, tentative.
_SECOND_CHOICE = 0x01 | 0x08 | 0x20 | 0x40
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RT_TABLE_MAIN, RTN_UNICAST = 254, 1
RTA_DST, RTA_OIF, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_MULTIPATH, RTA_TABLE = 1, 4, 6, 7, 8, 9, 15
RTAX_MTU = 2

#: struct ifaddrmsg: family, prefix length, flags, scope, index.
IFADDR = struct.Struct("=BBBBI")
#: struct rtmsg: family, prefix lengths of destination and source, tos, table, protocol, scope, type, flags.
RTMSG = struct.Struct("=8BI")
#: struct rtnexthop: length, flags, hops, index.
NEXTHOP = struct.Struct("=HBBi")
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True)
class Place:
    """An address and the interface it is on. `other`: on a point-to-point link the other end's, else the same."""

    address: Address
    prefixlen: int
    index: int
    second_choice: bool
    other: Address


def places(wire: Wire, wanted: int = RT_SCOPE_UNIVERSE) -> list[Place]:
    """All addresses of one scope, the global one, those to be preferred first, IPv4 before IPv6."""
    return places_of(wire, (wanted,))[wanted]


def places_of(wire: Wire, scopes: Sequence[int]) -> dict[int, list[Place]]:
    """The addresses of these scopes, in one reading; each list as `places` has it."""
    found: dict[int, list[Place]] = {scope: [] for scope in scopes}
    for body in wire.dump(RTM_GETADDR, IFADDR.pack(0, 0, 0, 0, 0)):
        if len(body) < IFADDR.size:
            continue
        _family, length, flags, scope, index = IFADDR.unpack_from(body)
        given = attributes(body, IFADDR.size)
        # On a point-to-point link IFA_ADDRESS is the other end's.
        raw = given.get(IFA_LOCAL) or given.get(IFA_ADDRESS, b"")
        if scope not in found or len(raw) not in (4, 16):
            continue
        flags = _number(given.get(IFA_FLAGS)) or flags
        beyond = given.get(IFA_ADDRESS, raw)
        other = Address.unpack(beyond if len(beyond) == len(raw) else raw)
        found[scope].append(Place(Address.unpack(raw), length, index, bool(flags & _SECOND_CHOICE), other))
    return {
        scope: sorted(held, key=lambda place: (place.second_choice, place.address.version))
        for scope, held in found.items()
    }


def choose(wire: Wire, links: Sequence[Seen], text: str) -> tuple[Address, Seen]:
    """The address and link that an interface's name or an address means; with "" those of the default route.

    Without a default route it is the only global address beside loopback. Raises Refused, naming what there is.
    """
    by_index = {link.index: link for link in links}
    there = [(place.address, by_index[place.index]) for place in places(wire) if place.index in by_index]
    if not text:
        return _by_default_route(wire, there) or _only(there)
    try:
        wanted = Address(text)
    except ValueError:
        fitting = [found for found in there if found[1].name == text]
    else:
        fitting = [found for found in there if found[0] == wanted]
    if not fitting:
        raise Refused(f"{text!r} is no interface with an address, and no address, of this host: it has {_list(there)}")
    return fitting[0]


def _only(there: Sequence[tuple[Address, Seen]]) -> tuple[Address, Seen]:
    candidates = [found for found in there if found[1].name != "lo"]
    if len(candidates) == 1:
        return candidates[0]
    raise Refused(f"without a default route the underlay's interface or address must be given: there is {_list(there)}")


def _list(there: Sequence[tuple[Address, Seen]]) -> str:
    return ", ".join(f"{address} on {link.name}" for address, link in there) or "no global address"


def _by_default_route(wire: Wire, there: Sequence[tuple[Address, Seen]]) -> tuple[Address, Seen] | None:
    for family in _FAMILIES:
        defaults = [route for route in main_routes(wire, family) if route.length == 0]
        for route in sorted(defaults, key=lambda route: _number(route.given.get(RTA_PRIORITY))):
            source, version = route.given.get(RTA_PREFSRC), 4 if family == socket.AF_INET else 6
            for address, link in there:
                fits = address.packed == source if source else (link.index, address.version) == (route.out, version)
                if fits:
                    return address, link
    return None


def routes(wire: Wire) -> tuple[Subnet, ...]:
    """Where the main table leads: unicast destinations but the default, link-local, loopback and multicast ones.

    The kernel filters by table: a host may carry a whole Internet in another.
    """
    return tuple(
        sorted({net for family in _FAMILIES for route in main_routes(wire, family) for net in route.leads_to()})
    )


def leads(wire: Wire) -> tuple[tuple[Subnet, int], ...]:
    """The same with the index of the interface that each route leaves by."""
    found = {
        (net, route.out) for family in _FAMILIES for route in main_routes(wire, family) for net in route.leads_to()
    }
    return tuple(sorted(found))


def route_mtu(wire: Wire, links: Sequence[Seen], address: Address) -> int:
    """Bytes that the route to `address` carries: its own MTU where it has one (RTAX_MTU), else its link's.

    Raises KernelRefused where there is no route.
    """
    route = _route_to(wire, address)
    mtu = next((link.mtu for link in links if route is not None and link.index == route.out), 0)
    if route is None or not mtu:
        raise KernelRefused(f"finding the route to {address}", 0, "it leaves by no link that is known")
    limit = _number(attributes(route.given.get(RTA_METRICS, b""), 0).get(RTAX_MTU))
    return min(limit, mtu) if limit else mtu


def route_out(wire: Wire, address: Address) -> int:
    """The interface that packets to `address` leave by. Raises KernelRefused where there is no route."""
    route = _route_to(wire, address)
    if route is None or not route.out:
        raise KernelRefused(f"finding the route to {address}", 0, "it leaves by no link that is known")
    return route.out


def _route_to(wire: Wire, address: Address) -> Route | None:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    request = RTMSG.pack(family, 8 * len(address.packed), 0, 0, 0, 0, 0, 0, 0) + attribute(RTA_DST, address.packed)
    return Route.decode(wire.one(Request(RTM_GETROUTE, 0, request), f"finding the route to {address}").body)


@dataclass(frozen=True, slots=True)
class Route:
    """A route: `given` are its attributes (RTA_*)."""

    family: int
    length: int
    table: int
    kind: int
    given: dict[int, bytes]

    @classmethod
    def decode(cls, body: bytes) -> Route | None:
        if len(body) < RTMSG.size:
            return None
        family, length, _source, _tos, table, _protocol, _scope, kind, _flags = RTMSG.unpack_from(body)
        return cls(family, length, table, kind, attributes(body, RTMSG.size))

    @property
    def out(self) -> int:
        """The interface it leaves by; of several next hops the first."""
        hops = self.given.get(RTA_MULTIPATH, b"")
        if RTA_OIF not in self.given and len(hops) >= NEXTHOP.size:
            return int(NEXTHOP.unpack_from(hops)[3])
        return index_in(self.given.get(RTA_OIF))

    def leads_to(self) -> Iterator[Subnet]:
        raw = self.given.get(RTA_DST, b"")
        if len(raw) == (4 if self.family == socket.AF_INET else 16) and 0 < self.length <= 8 * len(raw):
            net = ipaddress.ip_network((raw, self.length), strict=False)
            if not (net.is_link_local or net.is_multicast or net.is_loopback):
                yield Subnet(str(net))


def main_routes(wire: Wire, family: int) -> Iterator[Route]:
    """The unicast routes of the main table. Raises KernelRefused."""
    request = RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, 0, 0, RTN_UNICAST, 0)
    try:
        bodies = wire.dump(RTM_GETROUTE, request + attribute(RTA_TABLE, struct.pack("=I", RT_TABLE_MAIN)))
    except KernelRefused as said:
        if said.code != errno.ENOENT:  # the table is born with the namespace's first route (fib_new_table)
            raise
        return
    for body in bodies:
        route = Route.decode(body)
        if route is not None and (route.family, route.table, route.kind) == (family, RT_TABLE_MAIN, RTN_UNICAST):
            yield route


def index_in(raw: bytes | None) -> int:
    """An interface's number, which the kernel's structs hold with a sign; 0 for none."""
    return int(struct.unpack("=i", raw)[0]) if raw is not None and len(raw) == 4 else 0


def _number(raw: bytes | None) -> int:
    return struct.unpack("=I", raw)[0] if raw is not None and len(raw) == 4 else 0
