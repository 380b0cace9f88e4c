"""The cable that leads out of an overlay, and the rules at both of its ends. By struct, for any thread.

    container ─ br0 (the gateway) ─ egress0 ═ cable ═ a port of docker0 ─ the host's own routes and rules

In the overlay namespace all that leaves by the cable takes on its address; in the host's what comes from such an
address takes on the host's, as Docker's own containers do. On a bridge of Docker's its rules let it pass, whichever
program wrote them. Nothing but answers comes back in.

Sources: rtnetlink(7), linux/{if_link,rtnetlink}.h, net/netfilter/{nft_ct,nft_masq,nft_bitwise}.c.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Iterator, Sequence

from myoverlay.egress import NEAR, Crossing, Leg
from myoverlay.errors import KernelRefused
from myoverlay.kernel import cables, nft, underlay
from myoverlay.kernel.channel import Channel
from myoverlay.kernel.kept import Kept
from myoverlay.kernel.linkforms import IFF_UP, IFINFO, IFLA_MASTER, IFLA_MTU, Seen
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.rtnetlink import NLM_F_CREATE, NLM_F_REPLACE, Request, attribute
from myoverlay.kernel.underlay import IFADDR, RTA_DST, RTA_OIF, RTMSG, RTN_UNICAST
from myoverlay.values import Address

_RTM_NEWADDR, _RTM_NEWROUTE, _RTM_DELROUTE = 20, 24, 25
_RTA_GATEWAY = 5
_PROTO_STATIC, _ONLINK = 4, 4
_FORWARD = "net/ipv4/ip_forward"

# -- the rules --------------------------------------------------------------------------------------------------------

_FILTER, _SRCNAT = 0, 100
_SOURCE, _DESTINATION = (nft.NETWORK, 12, 4), (nft.NETWORK, 16, 4)
#: Connection tracking's states as bits: established, related (net/netfilter/nf_conntrack.h).
_ANSWERS = 2 | 4


def _answers() -> bytes:
    """The packet belongs to a connection that was begun from our side."""
    mask = nft.nested(4, attribute(1, struct.pack("=I", _ANSWERS)))
    nothing = nft.nested(5, attribute(1, bytes(4)))
    return b"".join((
        nft.expression("ct", nft.number(1, nft.R1), nft.number(2, 0)),
        nft.expression("bitwise", nft.number(1, nft.R1), nft.number(2, nft.R1), nft.number(3, 4), mask, nothing),
        nft.compare(bytes(4), nft.UNEQUAL),
    ))  # fmt: skip


def _inner_rules() -> Iterator[tuple[str, tuple[bytes, ...]]]:
    came = (nft.meta(nft.IIFNAME), nft.compare(nft.name(NEAR)))
    for chain in ("enters", "passes"):
        yield chain, (*came, _answers(), nft.verdict(nft.ACCEPT))
        yield chain, (*came, nft.verdict(nft.DROP))
    yield "leaves", (nft.meta(nft.OIFNAME), nft.compare(nft.name(NEAR)), nft.expression("masq"))


class InnerTable(Kept[bool]):
    """The rules in an overlay namespace, which hold no value: they are there, or not."""

    table = nft.Table(nft.IPV4, "myoverlay-egress")
    sets = {}
    counters = ()
    chains = ()
    hooks = (
        ("enters", nft.INPUT, _FILTER),
        ("passes", nft.FORWARD, _FILTER),
        ("leaves", nft.POSTROUTING, _SRCNAT, "nat"),
    )
    rules = tuple(_inner_rules())

    def _keys(self, _door: nft.Door, _held: bool) -> Sequence[tuple[str, list[bytes]]]:
        return ()

    def _read(self, _door: nft.Door) -> bool:
        return True


_FORMS = {"addresses": nft.Form(7, 4, b""), "bridges": nft.Form(41, 16, b"")}


def _outer_rules() -> Iterator[tuple[str, tuple[bytes, ...]]]:
    ours = (nft.payload(*_SOURCE), nft.lookup("addresses"))
    to_ours = (nft.payload(*_DESTINATION), nft.lookup("addresses"))
    drop = nft.verdict(nft.DROP)
    # To the bridge's own containers: they are another network's, and begin nothing here either.
    yield "passes", (*ours, nft.meta(nft.OIFNAME), nft.lookup("bridges"), drop)
    yield "passes", (*to_ours, _answers(), nft.verdict(nft.ACCEPT))
    yield "passes", (*to_ours, drop)
    yield "leaves", (*ours, nft.meta(nft.OIFNAME), nft.lookup("bridges", inverted=True), nft.expression("masq"))


class CrossingTable(Kept[Crossing]):
    """The rules in the host's namespace, for the cables of all overlays."""

    table = nft.Table(nft.IPV4, "myoverlay-egress")
    sets = _FORMS
    counters = ()
    chains = ()
    hooks = (("passes", nft.FORWARD, _FILTER), ("leaves", nft.POSTROUTING, _SRCNAT, "nat"))
    rules = tuple(_outer_rules())

    def _keys(self, _door: nft.Door, held: Crossing) -> Iterator[tuple[str, list[bytes]]]:
        yield "addresses", [address.packed for address in held.addresses]
        yield "bridges", [nft.name(bridge) for bridge in held.bridges]

    def _read(self, door: nft.Door) -> Crossing:
        found = {name: door.keys(self.table, name, form.length) for name, form in _FORMS.items()}
        return Crossing(frozenset(map(Address.unpack, found["addresses"])), frozenset(map(nft.word, found["bridges"])))


# -- the cable --------------------------------------------------------------------------------------------------------


class Cables:
    """The cables of a host's overlays. Each call opens what it needs, so that no namespace is kept alive by it."""

    def __init__(self, home: Callable[[], Namespace]) -> None:
        """`home`: the host's namespace."""
        self._home = home

    def bridge(self, name: str) -> tuple[Address, int] | None:
        """The IPv4 address and the MTU of a bridge of the host; None where none is up under that name.

        Raises KernelRefused.
        """
        with contextlib.closing(Channel(self._home())) as here:
            link = here.find(name)
            if link is None or link.kind != "bridge" or not link.up:
                return None
            there = [one.address for one in underlay.places(here.wire) if one.index == link.index]
            return next(((address, link.mtu) for address in there if address.version == 4), None)

    def faults(self, ns: Namespace, leg: Leg) -> tuple[str, ...]:
        """What is not as it should be, in words; nothing is changed. Raises KernelRefused."""
        with contextlib.closing(Channel(self._home())) as here, contextlib.closing(Channel(ns)) as there:
            far, near, bridge = here.find(leg.link), there.find(NEAR), here.need_index(leg.bridge)
            if not _is_cable(near, far) or near is None or far is None:
                return ("its cable",)
            found = [
                what
                for what, well in (
                    ("its port", far.master == bridge and far.up and near.up and far.mtu == near.mtu == leg.mtu),
                    ("its address", _addresses(there, near) == {(leg.address, 32)}),
                    ("its default route", (near.index, leg.via) in _defaults(there)),
                    ("the host's route to it", _out(here, leg.address) == bridge),
                )
                if not well
            ]
        return (*found, *(("forwarding",) if ns.read_sysctls([_FORWARD], unless="1") else ()))

    def make(self, ns: Namespace, leg: Leg) -> None:
        """Make it as it should be, whatever is there. Raises KernelRefused."""
        with contextlib.closing(Channel(self._home())) as here, contextlib.closing(Channel(ns)) as there:
            bridge = here.need_index(leg.bridge)
            far, near = here.find(leg.link), there.find(NEAR)
            if not _is_cable(near, far) or near is None or _addresses(there, near) - {(leg.address, 32)}:
                here.delete(leg.link)
                there.delete(NEAR)
                _do(there, "laying the cable to the outside", cables.pair(NEAR, leg.link, leg.mtu, self._home().fd))
                # Not an address of its own on Docker's bridge; where that is refused it has one, which does no harm.
                self._home().sysctl(f"net/ipv6/conf/{leg.link}/disable_ipv6", "1")
            outer, inner = here.need_index(leg.link), there.need_index(NEAR)
            _do(here, f"making {leg.link} a port of {leg.bridge}", _set(outer, leg.mtu, bridge))
            _do(here, f"making the route to {leg.address}", _route(bridge, to=leg.address))
            _do(there, f"setting up {NEAR}", _set(inner, leg.mtu), _address(inner, leg.address))
            _do(there, "making the default route", _route(inner, via=leg.via))
        for key, code in ns.sysctls({_FORWARD: "1"}).items():
            raise KernelRefused(f"setting {key}", code, "the overlay's gateway forwards nothing")

    def remove(self, leg: Leg) -> None:
        """Take a cable away by its end in the host's namespace, and the route to it. Absent is success.

        Raises KernelRefused.
        """
        with contextlib.closing(Channel(self._home())) as here:
            here.delete(leg.link)
            bridge = here.index_of(leg.bridge)
            gone = [_route(bridge, to=leg.address, kind=_RTM_DELROUTE)] if bridge is not None else []
            for failure in here.wire.commit(gone):
                if failure.code != errno.ESRCH:
                    raise KernelRefused(f"removing the route to {leg.address}", failure.code, failure.reason)


def _is_cable(near: Seen | None, far: Seen | None) -> bool:
    """Are these the two ends of one? The indexes are each the other's namespace's."""
    return near is not None and far is not None and (near.far, far.far) == (far.index, near.index)


def _addresses(channel: Channel, link: Seen) -> set[tuple[Address, int]]:
    held = underlay.places(channel.wire)
    return {(one.address, one.prefixlen) for one in held if one.index == link.index and one.address.version == 4}


def _defaults(channel: Channel) -> set[tuple[int, Address]]:
    """The default routes: by which link and which next hop."""
    return {
        (route.out, Address.unpack(route.given[_RTA_GATEWAY]))
        for route in underlay.main_routes(channel.wire, socket.AF_INET)
        if route.length == 0 and len(route.given.get(_RTA_GATEWAY, b"")) == 4
    }


def _out(channel: Channel, address: Address) -> int | None:
    try:
        return underlay.route_out(channel.wire, address)
    except KernelRefused as said:
        if said.code in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENOENT, 0):
            return None
        raise


def _do(channel: Channel, attempt: str, *requests: Request) -> None:
    for failure in channel.wire.commit(requests):
        raise KernelRefused(attempt, failure.code, failure.reason)


def _set(index: int, mtu: int, bridge: int | None = None) -> Request:
    """Up, with this MTU, and a port of the bridge."""
    more = attribute(IFLA_MASTER, struct.pack("=I", bridge)) if bridge is not None else b""
    head = IFINFO.pack(0, 0, index, IFF_UP, IFF_UP)
    return Request(cables.RTM_NEWLINK, 0, head + attribute(IFLA_MTU, struct.pack("=I", mtu)) + more)


def _address(index: int, address: Address) -> Request:
    held = attribute(underlay.IFA_LOCAL, address.packed) + attribute(underlay.IFA_ADDRESS, address.packed)
    body = IFADDR.pack(socket.AF_INET, 32, 0, underlay.RT_SCOPE_UNIVERSE, index) + held
    return Request(_RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body)


def _route(index: int, *, to: Address | None = None, via: Address | None = None, kind: int = _RTM_NEWROUTE) -> Request:
    """To one address on the link itself, or all else by a next hop on it, whatever the link's addresses say."""
    scope = underlay.RT_SCOPE_LINK if via is None else underlay.RT_SCOPE_UNIVERSE
    length, flags = (32, 0) if to is not None else (0, _ONLINK)
    body = RTMSG.pack(
        socket.AF_INET, length, 0, 0, underlay.RT_TABLE_MAIN, _PROTO_STATIC, scope, RTN_UNICAST, flags
    ) + attribute(RTA_OIF, struct.pack("=I", index))
    body += attribute(RTA_DST, to.packed) if to is not None else b""
    body += attribute(_RTA_GATEWAY, via.packed) if via is not None else b""
    return Request(kind, NLM_F_CREATE | NLM_F_REPLACE if kind == _RTM_NEWROUTE else 0, body)
