"""Questions about the network below the overlays: which address is this host's, what do its routes carry.

`ipr` is a pyroute2 IPRoute in the host's namespace; only `links` opens one.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from myoverlay.errors import Refused
from myoverlay.kernel.rtnetlink import Wire, attribute, attributes
from myoverlay.values import Address, Subnet

RTM_GETROUTE = 26
RT_TABLE_MAIN, RTN_UNICAST = 254, 1
RTA_DST, RTA_TABLE = 1, 15
RT_SCOPE_UNIVERSE = 0
IFF_LOOPBACK = 8
#: linux/if_addr.h: secondary (IPv6: temporary), DAD failed, deprecated, tentative.
_SECOND_CHOICE = 0x01 | 0x08 | 0x20 | 0x40

#: struct rtmsg: family, prefix lengths of destination and source, tos, table, protocol, scope, type, flags.
RTMSG = struct.Struct("=8BI")


@dataclass(frozen=True, slots=True)
class Place:
    """An address of this host and the interface it is on."""

    address: Address
    index: int
    name: str
    mtu: int
    second_choice: bool
    loopback: bool

    def __str__(self) -> str:
        return f"{self.address} on {self.name}"


def places(ipr: Any) -> list[Place]:
    """The host's addresses of global scope, those to be preferred first, IPv4 before IPv6."""
    links = {link["index"]: link for link in ipr.get_links()}
    found: list[Place] = []
    for row in ipr.get_addr():
        text = row.get_attr("IFA_LOCAL") or row.get_attr("IFA_ADDRESS")
        link = links.get(row["index"])
        if row["scope"] != RT_SCOPE_UNIVERSE or text is None or link is None:
            continue
        flags = row.get_attr("IFA_FLAGS") or row["flags"]
        found.append(
            Place(
                address=Address(text),
                index=row["index"],
                name=link.get_attr("IFLA_IFNAME"),
                mtu=link.get_attr("IFLA_MTU"),
                second_choice=bool(flags & _SECOND_CHOICE),
                loopback=bool(link["flags"] & IFF_LOOPBACK),
            )
        )
    return sorted(found, key=lambda place: (place.second_choice, place.address.version))


def address_of(ipr: Any, text: str) -> Place:
    """The place that an interface name or an address means; with "" that of the default route.

    Without a default route it is the only global address beside loopback. Raises Refused, naming what there is.
    """
    there = places(ipr)
    if not text:
        return _by_default_route(ipr, there) or _only(there)
    try:
        wanted = Address(text)
    except ValueError:
        fitting = [place for place in there if place.name == text]
    else:
        fitting = [place for place in there if place.address == wanted]
    if not fitting:
        raise Refused(f"{text!r} is no interface with an address, and no address, of this host: it has {_list(there)}")
    return fitting[0]


def _only(there: list[Place]) -> Place:
    candidates = [place for place in there if not place.loopback]
    if len(candidates) == 1:
        return candidates[0]
    raise Refused(f"without a default route the underlay's interface or address must be given: there is {_list(there)}")


def _list(there: list[Place]) -> str:
    return ", ".join(map(str, there)) or "no global address"


def _by_default_route(ipr: Any, there: list[Place]) -> Place | None:
    for family in (socket.AF_INET, socket.AF_INET6):
        version = 4 if family == socket.AF_INET else 6
        for route in sorted(ipr.get_default_routes(family), key=lambda route: route.get_attr("RTA_PRIORITY") or 0):
            source, index = route.get_attr("RTA_PREFSRC"), _out(route)
            for place in there:
                if place.address == source if source else place.index == index and place.address.version == version:
                    return place
    return None


def _out(route: Any) -> int | None:
    """The interface a route leaves by; of several next hops the first."""
    index: int | None = route.get_attr("RTA_OIF")
    hops = route.get_attr("RTA_MULTIPATH")
    return hops[0]["oif"] if index is None and hops else index


def route_mtu(ipr: Any, address: Address) -> int:
    """Bytes that the route to `address` carries: its own MTU where it has one (RTAX_MTU), else its link's."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    (route,) = ipr.route("get", dst=str(address), family=family)
    metrics = route.get_attr("RTA_METRICS")
    limit = metrics.get_attr("RTAX_MTU") if metrics else None
    (link,) = ipr.link("get", index=_out(route))
    mtu: int = link.get_attr("IFLA_MTU")
    return min(limit, mtu) if limit else mtu


def routes(wire: Wire) -> tuple[Subnet, ...]:
    """Where the main table leads: unicast destinations but the default, link-local, loopback and multicast ones.

    By struct and filtered in the kernel: a host may carry a whole Internet table.
    """
    found: set[Subnet] = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        request = RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, 0, 0, RTN_UNICAST, 0)
        request += attribute(RTA_TABLE, struct.pack("=I", RT_TABLE_MAIN))
        found.update(_destinations(wire.dump(RTM_GETROUTE, request), family))
    return tuple(sorted(found))


def _destinations(bodies: list[bytes], family: int) -> Iterator[Subnet]:
    width = 4 if family == socket.AF_INET else 16
    for body in bodies:
        there, length, _source, _tos, table, _protocol, _scope, kind, _flags = RTMSG.unpack_from(body)
        raw = attributes(body, RTMSG.size).get(RTA_DST, b"")
        if (there, table, kind) != (family, RT_TABLE_MAIN, RTN_UNICAST) or not length or len(raw) != width:
            continue
        net = ipaddress.ip_network((raw, length))
        if not (net.is_link_local or net.is_multicast or net.is_loopback):
            yield Subnet(str(net))
