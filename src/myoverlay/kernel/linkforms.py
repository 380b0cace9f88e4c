"""What a link should look like and what it looks like, both as plain values. Nothing here asks the kernel.

A `Form` is a Bridge, Vxlan or Veth spelt out in the kernel's attributes; a `Seen` is a link message taken apart. The
difference of the two is either attributes to set, or the need to make the link anew. Names as in linux/if_link.h.
"""

from __future__ import annotations

import re
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from myoverlay.kernel.rtnetlink import attributes
from myoverlay.values import Address, Bridge, Mac, Subnet, Value, Veth, Vxlan

Attributes: TypeAlias = Mapping[str, Any]
Thing: TypeAlias = Bridge | Vxlan | Veth

IFF_UP = 1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_LINK_NETNSID = 18, 20, 26, 37
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_INET6_CONF, DEVCONF_DISABLE_IPV6 = 2, 26
#: struct ifinfomsg: family, a byte of nothing, type, index, flags, change.
IFINFO = struct.Struct("=BxHiII")
#: Learning off: a moved MAC would stay blocked up to 300 s. Multicast and broadcast go everywhere: ARP, ND, mDNS.
_PORT = {"IFLA_BRPORT_LEARNING": 0, "IFLA_BRPORT_MCAST_FLOOD": 1, "IFLA_BRPORT_BCAST_FLOOD": 1}
#: What no container has goes to the tunnel, which asks (L2 miss); the bridge answers nothing in its place.
VXLAN_PORT_FLAGS = _PORT | {"IFLA_BRPORT_UNICAST_FLOOD": 1, "IFLA_BRPORT_NEIGH_SUPPRESS": 0}
#: Each container's MAC is a static row, so no container ever needs to see another's unicast.
VETH_PORT_FLAGS = _PORT | {"IFLA_BRPORT_UNICAST_FLOOD": 0}
BRIDGE_DATA = {"IFLA_BR_STP_STATE": 0, "IFLA_BR_FORWARD_DELAY": 0, "IFLA_BR_MCAST_SNOOPING": 0}
#: A tap that outlives who opens it (linux/if_tun.h: IFF_TAP).
TAP_DATA = {"IFLA_TUN_TYPE": 2, "IFLA_TUN_PERSIST": 1}

#: No fragments outside (IFLA_VXLAN_DF, linux/if_link.h: VXLAN_DF_SET; Linux 5.0).
_DF_SET = 1

_LABEL = re.compile(r"myoverlay (?:veth link=(\S+)|tap) mac=(\S+?)(?: address=(\S+))?")


class Tunnel(Vxlan, frozen=True, kw_only=True):
    """A tunnel device that is a port of no bridge and has an address of its own: the heartbeat's.

    It learns where each sender is, and asks nobody. What it sends is not fragmented outside.
    """

    mac: Mac
    bridge: str = ""
    learning: bool = True
    proxy: bool = False
    l2miss: bool = False
    l3miss: bool = False


class Doorstep(Bridge, frozen=True, kw_only=True):
    """A bridge without ports in the host's own namespace, whose settings are not ours."""


class Resolving(NamedTuple):
    """A bridge's address of link scope, and the network beyond it where it was given one."""

    address: Address
    reach: Subnet | None


class Observed(Value, frozen=True, kw_only=True):
    """A link that is there. `value` is what it amounts to, in the words it is asked for, or None for a stranger.

    `faults` are the differences that the value has no words for (a port flag, a missing row, down), one phrase each.
    What is wanted is there exactly if some observed link has an equal value and no faults; `ensure` mends the rest.
    """

    name: str
    value: Thing | None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Form:
    """A link as it should be. `birth` cannot be changed later: where it differs the link is made anew."""

    name: str
    kind: str
    mtu: int
    mac: str | None = None
    master: str | None = None
    alias: str | None = None
    birth: Attributes = field(default_factory=dict)
    data: Attributes = field(default_factory=dict)
    port: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """A link as the kernel tells it. `far` is the veth's other end by its index, where that may be elsewhere."""

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    up: bool
    master: int | None
    alias: str | None
    far: int | None
    far_ns: int | None
    ipv6_off: bool | None
    data: Attributes
    port: Attributes


def bridge_form(bridge: Bridge) -> Form:
    return Form(bridge.name, "bridge", bridge.mtu, mac=bridge.mac, data=BRIDGE_DATA)


def vxlan_form(vxlan: Vxlan) -> Form:
    version = vxlan.local.version if vxlan.local else 0
    birth = {
        "IFLA_VXLAN_ID": vxlan.vni,
        "IFLA_VXLAN_PORT": vxlan.port,
        "IFLA_VXLAN_LOCAL": vxlan.local if version == 4 else None,
        "IFLA_VXLAN_LOCAL6": vxlan.local if version == 6 else None,
        "IFLA_VXLAN_LEARNING": int(vxlan.learning),
        "IFLA_VXLAN_PROXY": int(vxlan.proxy),
        "IFLA_VXLAN_L2MISS": int(vxlan.l2miss),
        "IFLA_VXLAN_L3MISS": int(vxlan.l3miss),
    }
    return Form(vxlan.name, "vxlan", vxlan.mtu, master=vxlan.bridge, birth=birth, port=VXLAN_PORT_FLAGS)


def tunnel_form(tunnel: Tunnel) -> Form:
    return replace(vxlan_form(tunnel), mac=tunnel.mac, data={"IFLA_VXLAN_DF": _DF_SET}, port={})


def veth_form(veth: Veth) -> Form:
    kind, birth = ("tun", TAP_DATA) if veth.link is None else ("veth", {})
    return Form(veth.port, kind, veth.mtu, master=veth.bridge, alias=label(veth), birth=birth, port=VETH_PORT_FLAGS)


def label(veth: Veth) -> str:
    """What the bridge's end carries as its alias: a container's end that has moved away cannot be seen any more."""
    kind = "tap" if veth.link is None else f"veth link={veth.link}"
    return f"myoverlay {kind} mac={veth.mac}" + (f" address={veth.address}" if veth.address else "")


def read_label(alias: str | None) -> tuple[str | None, Mac] | None:
    """Link name (a tap has none) and MAC of a label, or None for anything else."""
    found = _LABEL.fullmatch(alias or "")
    try:
        return (found[1], Mac(found[2])) if found else None
    except ValueError:
        return None


def _labelled_address(alias: str | None) -> Address | None:
    found = _LABEL.fullmatch(alias or "")
    return Address(found[3]) if found and found[3] else None


def decode_link(body: bytes) -> Seen | None:
    """A link message (RTM_NEWLINK behind its header) taken apart; None for one that is cut off or has no name."""
    if len(body) < IFINFO.size:
        return None
    _family, _type, index, flags, _change = IFINFO.unpack_from(body)
    found = attributes(body, IFINFO.size)
    if IFLA_IFNAME not in found:
        return None
    info = _inner(found, IFLA_LINKINFO)
    kind = _text(info.get(IFLA_INFO_KIND, b""))
    of_bridge = _text(info.get(IFLA_INFO_SLAVE_KIND, b"")) == "bridge"
    return Seen(
        index=index,
        name=_text(found[IFLA_IFNAME]),
        kind=kind,
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found.get(IFLA_MTU, b"")),
        up=bool(flags & IFF_UP),
        master=_maybe(found, IFLA_MASTER),
        alias=_text(found[IFLA_IFALIAS]) if IFLA_IFALIAS in found else None,
        far=_maybe(found, IFLA_LINK),
        far_ns=_maybe(found, IFLA_LINK_NETNSID),
        ipv6_off=_ipv6_off(found),
        data=_named(info, IFLA_INFO_DATA, _DATA.get(kind, {})),
        port=_named(info, IFLA_INFO_SLAVE_DATA, _BRPORT) if of_bridge else {},
    )


def flags_of(body: bytes) -> int:
    """A link message's flags (IFF_*); none in one that is cut off."""
    return int(IFINFO.unpack_from(body)[3]) if len(body) >= IFINFO.size else 0


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, sys.byteorder)


def _network_number(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "replace")


def _ip(raw: bytes) -> str:
    return Address.unpack(raw) if len(raw) in (4, 16) else ""


def _maybe(found: Mapping[int, bytes], kind: int) -> int | None:
    return int.from_bytes(found[kind], sys.byteorder, signed=True) if kind in found else None


def _inner(found: Mapping[int, bytes], kind: int) -> dict[int, bytes]:
    return attributes(found.get(kind, b""), 0)


def _named(info: Mapping[int, bytes], kind: int, names: _Names) -> Attributes:
    there = _inner(info, kind)
    return {name: read(there[number]) for number, (name, read) in names.items() if number in there}


def _ipv6_off(found: Mapping[int, bytes]) -> bool | None:
    """From the array of the device's IPv6 settings (linux/ipv6.h, DEVCONF_*); None where the kernel has no IPv6."""
    settings = _inner(_inner(found, IFLA_AF_SPEC), socket.AF_INET6).get(IFLA_INET6_CONF, b"")
    raw = settings[4 * DEVCONF_DISABLE_IPV6 :][:4]
    return bool(_number(raw)) if raw else None


_Names: TypeAlias = Mapping[int, tuple[str, Callable[[bytes], Any]]]
#: The attributes that a Form speaks of, by number (linux/if_link.h).
_DATA: Mapping[str, _Names] = {
    "bridge": {
        1: ("IFLA_BR_FORWARD_DELAY", _number),
        5: ("IFLA_BR_STP_STATE", _number),
        23: ("IFLA_BR_MCAST_SNOOPING", _number),
    },
    "vxlan": {
        1: ("IFLA_VXLAN_ID", _number),
        4: ("IFLA_VXLAN_LOCAL", _ip),
        7: ("IFLA_VXLAN_LEARNING", _number),
        11: ("IFLA_VXLAN_PROXY", _number),
        13: ("IFLA_VXLAN_L2MISS", _number),
        14: ("IFLA_VXLAN_L3MISS", _number),
        15: ("IFLA_VXLAN_PORT", _network_number),
        17: ("IFLA_VXLAN_LOCAL6", _ip),
        29: ("IFLA_VXLAN_DF", _number),
    },
    "tun": {3: ("IFLA_TUN_TYPE", _number), 6: ("IFLA_TUN_PERSIST", _number)},
}
_BRPORT: _Names = {
    1: ("IFLA_BRPORT_STATE", _number),
    8: ("IFLA_BRPORT_LEARNING", _number),
    9: ("IFLA_BRPORT_UNICAST_FLOOD", _number),
    27: ("IFLA_BRPORT_MCAST_FLOOD", _number),
    30: ("IFLA_BRPORT_BCAST_FLOOD", _number),
    32: ("IFLA_BRPORT_NEIGH_SUPPRESS", _number),
}
#: The attributes of a port by name.
BRPORTS: Mapping[str, int] = {name: number for number, (name, _) in _BRPORT.items()}


def newborn(form: Form, index: int, master: int | None) -> Seen:
    """A link just made of a form, without asking: down, unlabelled, its port's flags unknown."""
    data = {**form.birth, **form.data}
    return Seen(index, form.name, form.kind, form.mac or "", form.mtu, False, master, None, None, None, None, data, {})


def must_be_made_anew(form: Form, link: Seen) -> bool:
    return link.kind != form.kind or bool(_different(form.birth, link.data))


def born(form: Form, master: int | None) -> dict[str, Any]:
    """The attributes of the one request that makes the link, down and with all that can be given at birth.

    An attribute that is None is one that must not be there.
    """
    given: dict[str, Any] = {"IFLA_IFNAME": form.name, "IFLA_MTU": form.mtu}
    if form.mac is not None:
        given["IFLA_ADDRESS"] = form.mac
    if master is not None:
        given["IFLA_MASTER"] = master
    info: list[tuple[str, Any]] = [("IFLA_INFO_KIND", form.kind)]
    if data := [(name, value) for name, value in {**form.birth, **form.data}.items() if value is not None]:
        info.append(("IFLA_INFO_DATA", {"attrs": data}))
    given["IFLA_LINKINFO"] = {"attrs": info}
    return given


def corrections(form: Form, link: Seen, master: int | None) -> list[dict[str, Any]]:
    """The requests, in order, that make the link as it should be and up; none where it is.

    One is the rule. A port moves to its bridge before it is told that bridge's flags, and STP is off before the forward
    delay is zero (the kernel takes them the other way round, and refuses). Up comes last, so that no frame ever passes
    a port that floods or learns.
    """
    steps: list[dict[str, Any]] = []
    if link.master != master:
        steps.append({"IFLA_MASTER": master or 0})
    data = _different(form.data, link.data)
    if "IFLA_BR_STP_STATE" in data:
        steps.append(_info(form, {"IFLA_BR_STP_STATE": data.pop("IFLA_BR_STP_STATE")}, {}))
    last = _info(form, data, _different(form.port, link.port if link.master == master else {}))
    if link.mtu != form.mtu:
        last["IFLA_MTU"] = form.mtu
    if form.mac is not None and link.mac != form.mac:
        last["IFLA_ADDRESS"] = form.mac
    if form.alias is not None and link.alias != form.alias:
        last["IFLA_IFALIAS"] = form.alias
    if not link.up:
        last |= {"flags": IFF_UP, "change": IFF_UP}
    return [*steps, last] if last else steps


def _info(form: Form, data: Attributes, port: Attributes) -> dict[str, Any]:
    info: list[tuple[str, Any]] = []
    if data:
        info += [("IFLA_INFO_KIND", form.kind), ("IFLA_INFO_DATA", {"attrs": list(data.items())})]
    if port:
        info += [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", {"attrs": list(port.items())})]
    return {"IFLA_LINKINFO": {"attrs": info}} if info else {}


def _different(wanted: Attributes, there: Attributes) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if there.get(name) != value}


def observed(
    link: Seen,
    master: Seen | None,
    addresses: tuple[tuple[Address, int], ...],
    rows: frozenset[Mac],
    resolving: tuple[Resolving, ...] = (),
) -> Observed:
    """What a link amounts to. `master` is the bridge it is a port of, `rows` the static MACs of this port."""
    try:
        value = _value(link, master.name if master else "", addresses, resolving)
    except ValueError:
        value = None
    if value is None:
        return Observed(name=link.name, value=None)
    faults = _faults(value, link, master, addresses, rows)
    if isinstance(value, Bridge):
        faults += [f"also has {one.address}" for one in resolving[1:]]
    return Observed(name=link.name, value=value, faults=tuple(faults))


def _value(
    link: Seen, master: str, addresses: tuple[tuple[Address, int], ...], resolving: tuple[Resolving, ...]
) -> Thing | None:
    if link.kind == "bridge":
        address, prefixlen = addresses[0] if addresses else (None, 0)
        resolver, reach = resolving[0] if resolving else (None, None)
        return Bridge(
            name=link.name,
            mac=Mac(link.mac),
            mtu=link.mtu,
            address=address,
            prefixlen=prefixlen,
            resolver=resolver,
            reach=reach,
        )
    if link.kind == "vxlan":
        return _vxlan(link, master)
    labelled = read_label(link.alias)
    if labelled is None or link.kind != ("tun" if labelled[0] is None else "veth"):
        return None
    address = _labelled_address(link.alias)
    return Veth(port=link.name, link=labelled[0], bridge=master, mac=labelled[1], mtu=link.mtu, address=address)


def _vxlan(link: Seen, master: str) -> Vxlan:
    local = link.data.get("IFLA_VXLAN_LOCAL") or link.data.get("IFLA_VXLAN_LOCAL6")
    return Vxlan(
        name=link.name,
        bridge=master,
        vni=link.data.get("IFLA_VXLAN_ID", 0),
        port=link.data.get("IFLA_VXLAN_PORT", 0),
        local=Address(local) if local else None,
        mtu=link.mtu,
        **{
            flag: bool(link.data.get(f"IFLA_VXLAN_{flag.upper()}"))
            for flag in ("learning", "proxy", "l2miss", "l3miss")
        },
    )


def _faults(
    value: Thing, link: Seen, master: Seen | None, addresses: tuple[tuple[Address, int], ...], rows: frozenset[Mac]
) -> list[str]:
    form = form_of(value)
    wrong = _different(form.birth, link.data) | _different(form.data, link.data) | _different(form.port, link.port)
    faults = [f"{name} is not {wanted}" for name, wanted in wrong.items()]
    if not link.up:
        faults.append("down")
    if isinstance(value, Veth):
        faults += [f"no static row of {value.mac}"] if value.mac not in rows else []
        faults += [f"static row of {mac}" for mac in sorted(rows - {value.mac})]
    elif isinstance(value, Vxlan):
        # Where IPv6 is off on the tunnel the kernel refuses every IPv6 neighbour (ndisc_allow_add).
        faults += ["IPv6 is not as on its bridge"] if master is not None and link.ipv6_off != master.ipv6_off else []
    else:
        faults += [f"also has {address}/{length}" for address, length in addresses[1:]]
    return faults


def form_of(value: Thing) -> Form:
    """The form of any of them."""
    if isinstance(value, Bridge):
        return bridge_form(value)
    if isinstance(value, Tunnel):
        return tunnel_form(value)
    return vxlan_form(value) if isinstance(value, Vxlan) else veth_form(value)
