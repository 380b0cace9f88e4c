"""What a link should look like and what it looks like, both as plain values. Nothing here asks the kernel.

A `Form` is a Bridge, Vxlan or Veth spelt out in the kernel's attributes; a `Seen` is a link message taken apart. The
difference of the two is either attributes to set, or the need to make the link anew. Names as in linux/if_link.h.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from myoverlay.values import Address, Bridge, Mac, Value, Veth, Vxlan

Attributes = Mapping[str, Any]
Thing = Bridge | Vxlan | Veth

IFF_UP = 1
#: Learning off: a moved MAC would stay blocked up to 300 s. Multicast and broadcast go everywhere: ARP, ND, mDNS.
_PORT = {"IFLA_BRPORT_LEARNING": 0, "IFLA_BRPORT_MCAST_FLOOD": 1, "IFLA_BRPORT_BCAST_FLOOD": 1}
#: What no container has goes to the tunnel, which asks (L2 miss); the bridge answers nothing in its place.
VXLAN_PORT_FLAGS = _PORT | {"IFLA_BRPORT_UNICAST_FLOOD": 1, "IFLA_BRPORT_NEIGH_SUPPRESS": 0}
#: Each container's MAC is a static row, so no container ever needs to see another's unicast.
VETH_PORT_FLAGS = _PORT | {"IFLA_BRPORT_UNICAST_FLOOD": 0}
BRIDGE_DATA = {"IFLA_BR_STP_STATE": 0, "IFLA_BR_FORWARD_DELAY": 0, "IFLA_BR_MCAST_SNOOPING": 0}
#: Learning together with permanent rows drops frames whose outer source differs from the row: 0 of 5 arrived.
VXLAN_DATA = {"IFLA_VXLAN_LEARNING": 0, "IFLA_VXLAN_PROXY": 1, "IFLA_VXLAN_L2MISS": 1, "IFLA_VXLAN_L3MISS": 1}

_LABEL = re.compile(r"myoverlay veth link=(\S+) mac=(\S+)")


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
    local = "IFLA_VXLAN_LOCAL" if vxlan.local.version == 4 else "IFLA_VXLAN_LOCAL6"
    birth = VXLAN_DATA | {"IFLA_VXLAN_ID": vxlan.vni, "IFLA_VXLAN_PORT": vxlan.port, local: str(vxlan.local)}
    return Form(vxlan.name, "vxlan", vxlan.mtu, master=vxlan.bridge, birth=birth, port=VXLAN_PORT_FLAGS)


def veth_form(veth: Veth) -> Form:
    return Form(veth.port, "veth", veth.mtu, master=veth.bridge, alias=label(veth), port=VETH_PORT_FLAGS)


def label(veth: Veth) -> str:
    """What the bridge's end carries as its alias: a container's end that has moved away cannot be seen any more."""
    return f"myoverlay veth link={veth.link} mac={veth.mac}"


def read_label(alias: str | None) -> tuple[str, Mac] | None:
    """Link name and MAC of a label, or None for anything else."""
    found = _LABEL.fullmatch(alias or "")
    try:
        return (found[1], Mac(found[2])) if found else None
    except ValueError:
        return None


def seen(message: Any) -> Seen:
    """A link message of pyroute2, taken apart."""
    info = message.get_attr("IFLA_LINKINFO")
    ipv6 = message.get_nested("IFLA_AF_SPEC", "AF_INET6", "IFLA_INET6_CONF")
    slave = info.get_attr("IFLA_INFO_SLAVE_KIND") if info else None
    return Seen(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=(info.get_attr("IFLA_INFO_KIND") if info else None) or "",
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU"),
        up=bool(message["flags"] & IFF_UP),
        master=message.get_attr("IFLA_MASTER"),
        alias=message.get_attr("IFLA_IFALIAS"),
        far=message.get_attr("IFLA_LINK"),
        far_ns=message.get_attr("IFLA_LINK_NETNSID"),
        ipv6_off=bool(ipv6["disable_ipv6"]) if ipv6 else None,
        data=_nested(info, "IFLA_INFO_DATA"),
        port=_nested(info, "IFLA_INFO_SLAVE_DATA") if slave == "bridge" else {},
    )


def _nested(info: Any, name: str) -> Attributes:
    inner = info.get_attr(name) if info else None
    # Kinds the library does not know come as a string of hex digits.
    return dict(inner["attrs"]) if isinstance(inner, dict) else {}


def must_be_made_anew(form: Form, link: Seen) -> bool:
    return link.kind != form.kind or bool(_different(form.birth, link.data))


def born(form: Form, master: int | None) -> dict[str, Any]:
    """The attributes of the one request that makes the link, down and with all that can be given at birth."""
    attributes: dict[str, Any] = {"IFLA_IFNAME": form.name, "IFLA_MTU": form.mtu}
    if form.mac is not None:
        attributes["IFLA_ADDRESS"] = form.mac
    if master is not None:
        attributes["IFLA_MASTER"] = master
    info: list[tuple[str, Any]] = [("IFLA_INFO_KIND", form.kind)]
    if data := [*form.birth.items(), *form.data.items()]:
        info.append(("IFLA_INFO_DATA", {"attrs": data}))
    attributes["IFLA_LINKINFO"] = {"attrs": info}
    return attributes


def corrections(form: Form, link: Seen, master: int | None) -> dict[str, Any]:
    """The attributes to set so that the link is as it should be, but for being up; empty where it is."""
    attributes: dict[str, Any] = {}
    if link.mtu != form.mtu:
        attributes["IFLA_MTU"] = form.mtu
    if form.mac is not None and link.mac != form.mac:
        attributes["IFLA_ADDRESS"] = form.mac
    if form.alias is not None and link.alias != form.alias:
        attributes["IFLA_IFALIAS"] = form.alias
    info: list[tuple[str, Any]] = []
    if data := _different(form.data, link.data):
        info += [("IFLA_INFO_KIND", form.kind), ("IFLA_INFO_DATA", {"attrs": list(data.items())})]
    # A port of another bridge has to move there first: its flags are a second request.
    if link.master == master and (port := _different(form.port, link.port)):
        info += [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", {"attrs": list(port.items())})]
    if info:
        attributes["IFLA_LINKINFO"] = {"attrs": info}
    return attributes


def _different(wanted: Attributes, there: Attributes) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if there.get(name) != value}


def observed(
    link: Seen, names: Mapping[int, str], addresses: tuple[tuple[Address, int], ...], rows: frozenset[Mac]
) -> Observed:
    """What a link amounts to. `names` are the namespace's links by index, `rows` the static MACs of this port."""
    try:
        value = _value(link, names, addresses)
    except ValueError:
        value = None
    if value is None:
        return Observed(name=link.name, value=None)
    return Observed(name=link.name, value=value, faults=tuple(_faults(value, link, addresses, rows)))


def _value(link: Seen, names: Mapping[int, str], addresses: tuple[tuple[Address, int], ...]) -> Thing | None:
    master = names.get(link.master or 0, "")
    if link.kind == "bridge":
        address, prefixlen = addresses[0] if addresses else (None, 0)
        return Bridge(name=link.name, mac=Mac(link.mac), mtu=link.mtu, address=address, prefixlen=prefixlen)
    if link.kind == "vxlan":
        local = link.data.get("IFLA_VXLAN_LOCAL") or link.data.get("IFLA_VXLAN_LOCAL6") or ""
        vni, port = link.data.get("IFLA_VXLAN_ID", 0), link.data.get("IFLA_VXLAN_PORT", 0)
        return Vxlan(name=link.name, bridge=master, vni=vni, port=port, local=Address(local), mtu=link.mtu)
    labelled = read_label(link.alias) if link.kind == "veth" else None
    if labelled is None:
        return None
    return Veth(port=link.name, link=labelled[0], bridge=master, mac=labelled[1], mtu=link.mtu)


def _faults(value: Thing, link: Seen, addresses: tuple[tuple[Address, int], ...], rows: frozenset[Mac]) -> list[str]:
    form = form_of(value)
    wrong = _different(form.birth, link.data) | _different(form.data, link.data) | _different(form.port, link.port)
    faults = [f"{name} is not {wanted}" for name, wanted in wrong.items()]
    if not link.up:
        faults.append("down")
    if isinstance(value, Veth):
        faults += [f"no static row of {value.mac}"] if value.mac not in rows else []
        faults += [f"static row of {mac}" for mac in sorted(rows - {value.mac})]
    elif isinstance(value, Bridge):
        faults += [f"also has {address}/{length}" for address, length in addresses[1:]]
    return faults


def form_of(value: Thing) -> Form:
    """The form of any of the three."""
    if isinstance(value, Bridge):
        return bridge_form(value)
    return vxlan_form(value) if isinstance(value, Vxlan) else veth_form(value)
