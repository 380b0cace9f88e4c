"""One host's half of a path: what was read there, compared with what should be, hop by hop.

Values in, hops out, in the order a packet takes them. What the reconciler would put right is said to be so; what it
would not carries the command that does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from myoverlay.path import (
    End,
    Floor,
    Heard,
    Hop,
    Link,
    Neighbour,
    Room,
    Route,
    Rules,
    State,
    Tunnel,
)
from myoverlay.plan import overheard
from myoverlay.plan.definition import carries
from myoverlay.plan.firewall import Blocked, Gate, Packet, Ruleset
from myoverlay.plan.hops import make, unread
from myoverlay.plan.overheard import Told
from myoverlay.plan.traffic import Frame, Pass, inner_frame, outer_frame, stops
from myoverlay.values import Address

BRIDGE, DEVICE = "br0", "vxlan1"
HEALED = "the plugin puts it right within 3 s; where it stays, `myoverlay counters` and the plugin's log say why"
_ASKED_AGAIN = ("failed", "incomplete", "none")


class Half(NamedTuple):
    """One host's side of a path, as read: `own` is the end that is here, `other` the one it talks to.

    `port` is the veth's end in the overlay namespace. `far` is the container's end as read from there; `room` the
    container's namespace, where it could be entered; `heard`, where not, how the container answered an echo. `pulled`:
    rows are written when they are asked for, and these were not yet. `enter` is the word that runs a command in the
    container's namespace.
    """

    tunnel: Tunnel
    vtep: Address
    own: End
    other: End
    port: str
    floor: Floor
    far: Link | None = None
    room: Room | None = None
    heard: Heard | None = None
    outer: tuple[Route, Neighbour | None] | None = None
    host_rules: Rules = Rules()
    overlay_rules: Rules = Rules()
    pulled: bool = False
    enter: str = ""
    overlay: str = ""
    subnet: str = ""


def leaving(half: Half) -> list[Hop]:
    """What a packet meets from the container to the host's own underlay."""
    return [*_container(half), *_cable(half), _bridge(half), *_tunnel(half), *_outside(half)]


def arriving(half: Half) -> list[Hop]:
    """What a packet meets from the underlay to the container: the mirror."""
    return leaving(half)[::-1]


def at_home(source: Half, target: Half) -> list[Hop]:
    """Both ends on one host: over the bridge, from one container to the other."""
    return [
        *_container(source),
        *_cable(source),
        _bridge(source),
        _overlay_firewall(source, target.port),
        *reversed(_cable(target)),
        *reversed(_container(target)),
    ]


# -- the container -------------------------------------------------------------------------------------------------


def _container(half: Half) -> list[Hop]:
    if half.room is None:
        return [*overheard.hops(_told(half)), _container_link(half, half.far)]
    return [_route(half, half.room), _neighbour(half, half.room), _container_link(half, half.room.link)]


def _told(half: Half) -> Told:
    return Told(half.own, half.other, half.heard, half.far, half.enter, half.subnet)


def _route(half: Half, room: Room) -> Hop:
    wanted = f"{half.other.address} directly by {room.link.name if room.link else 'the interface'}"
    route = room.route
    saw = route.trouble or f"{half.other.address} by {route.out}" + (f" via {route.gateway}" if route.gateway else "")
    wrong = bool(route.trouble or route.gateway or (room.link is not None and route.out != room.link.name))
    link = room.link.name if room.link else "eth0"
    to = half.subnet if route.trouble and half.subnet else f"{half.other.address}/32"
    remedy = f"{half.enter} ip route replace {to} dev {link} src {half.own.address}"
    if room.link is None:
        return unread("container route", saw, "the interface is not there: see the container link")
    if not room.link.up:
        return unread("container route", saw, "the interface is down: see the container link")
    return make("container route", wrong, saw, wanted, f"{remedy}; or restart the container")


def _neighbour(half: Half, room: Room) -> Hop:
    """What the container believes the other's MAC to be. None yet, or one that it asks for anew, is right."""
    name, row, other = "container neighbour", room.neighbour, half.other
    device = room.link.name if room.link is not None else "eth0"
    wanted = f"{other.address} lladdr {other.mac}, or none yet"
    if row is not None and row.mac and row.state not in _ASKED_AGAIN:
        saw = f"{other.address} lladdr {row.mac} {row.state}"
        remedy = f"{half.enter} ip neigh del {other.address} dev {device}"
        return make(name, row.mac != other.mac, saw, wanted, remedy)
    if room.link is not None and not room.link.arp:
        return make(name, True, "ARP is off on the interface", wanted, f"{half.enter} ip link set dev {device} arp on")
    return make(name, False, f"{row.state}: it asks anew" if row is not None else "none yet: it asks", wanted, "")


def _container_link(half: Half, link: Link | None) -> Hop:
    wanted = f"{half.own.address}, MAC {half.own.mac}, MTU {half.tunnel.mtu}, up"
    if link is None:
        saw = f"no interface has {half.own.address}" if half.room is not None else "there is no other end of the cable"
        return make("container link", True, saw, wanted, "restart the container")
    saw = f"{link.name}: MAC {link.mac}, MTU {link.mtu}, {_up(link)}"
    wrong = not link.up or link.mtu != half.tunnel.mtu or link.mac != half.own.mac
    set_it = f"{half.enter} ip link set dev {link.name} address {half.own.mac} mtu {half.tunnel.mtu} up"
    stopped = _stopped_inside(half, link)
    if stopped is not None and not wrong:
        said, remedy = f"{saw}; {stopped.rule}", f"{half.enter} tc {stopped.where}"
        return (
            make("container link", True, said, f"{wanted}, and nothing that drops", remedy)
            if stopped.sure
            else unread("container link", f"{saw}; perhaps dropped by {stopped.rule}", remedy)
        )
    return make("container link", wrong, saw, wanted, f"{set_it}; or restart the container")


def _stopped_inside(half: Half, link: Link) -> Blocked | None:
    """What traffic control in the container takes away of what it sends, and of what it gets."""
    if half.room is None:
        return None
    size = half.tunnel.mtu
    out = stops(half.room.traffic, inner_frame(half.own, half.other, size), [Pass(link.name, "egress")])
    if out is not None and out.sure:
        return out
    back = stops(half.room.traffic, inner_frame(half.other, half.own, size), [Pass(link.name, "ingress")])
    return back if back is not None and back.sure else out or back


# -- the overlay namespace -----------------------------------------------------------------------------------------


def _cable(half: Half) -> list[Hop]:
    link, mtu = half.floor.links.get(half.port), half.tunnel.mtu
    if link is None:
        gone = make(
            "veth", True, f"no {half.port}", f"{half.port}, MTU {mtu}, up",
            "its container's namespace is gone, or somebody removed it: restart the container",
        )  # fmt: skip
        return [gone, unread("bridge port", "no veth"), unread("bridge row", "no veth")]
    saw = f"{link.name}: MTU {link.mtu}, {_up(link)}"
    return [
        _healed("veth", not link.up or link.mtu != mtu, saw, f"MTU {mtu}, up"),
        _port("bridge port", half.floor, link, half.room.link if half.room is not None else half.far),
        _bridge_row(half, link),
    ]


def _port(name: str, floor: Floor, link: Link, behind: Link | None = None) -> Hop:
    """A port of the bridge; `behind`: the container's end of its cable."""
    wanted = f"{link.name} in {BRIDGE}, forwarding"
    passing = "forwarding" if link.forwards else "not forwarding"
    saw = f"{link.name} {f'in {link.master}' if link.master else 'in no bridge'}, {passing}"
    if link.master != BRIDGE:
        return _healed(name, True, saw, wanted)
    if link.forwards or not link.up or floor.bridge is None or not floor.bridge.up:
        return _healed(name, False, saw, wanted)  # what is down is named itself
    if behind is None or not behind.up:
        return unread(name, f"{saw}: its other end is down, see the container link")
    # The kernel opens a port some time after its other end came up (net/core/link_watch.c).
    return make(name, True, saw, wanted, "it came up just now: trace again; else restart the container")


def _bridge(half: Half) -> Hop:
    bridge, mtu = half.floor.bridge, half.tunnel.mtu
    wanted = f"{BRIDGE}: MTU {mtu}, up"
    if bridge is None:
        return _healed("bridge", True, f"there is no bridge {BRIDGE}", wanted)
    # A bridge follows the smallest MTU of its ports, which is named there (net/bridge/br_if.c, br_mtu_auto_adjust).
    least = min((link.mtu for link in half.floor.links.values() if link.master == BRIDGE), default=mtu)
    saw = f"{BRIDGE}: MTU {bridge.mtu}, {_up(bridge)}"
    return _healed("bridge", not bridge.up or bridge.mtu not in (mtu, least), saw, wanted)


def _bridge_row(half: Half, link: Link) -> Hop:
    floor, wanted = half.floor, f"{half.own.mac} at {link.name}"
    if link.master != BRIDGE:
        return unread("bridge row", "no port: see the bridge port")
    at = floor.macs.get(half.own.mac)
    if at != link.name:
        return _healed("bridge row", True, f"{half.own.mac} at {at or 'no port'}", wanted)
    astray = floor.macs.get(half.other.mac)
    if half.other.host != half.own.host and astray not in (None, DEVICE):
        return _healed("bridge row", True, f"{half.other.mac}, which is elsewhere, at {astray}", "it at no port here")
    return _healed("bridge row", False, wanted, wanted)


def _tunnel(half: Half) -> list[Hop]:
    device, tunnel = half.floor.device, half.tunnel
    firewall_hop = _overlay_firewall(half, DEVICE)
    if device is None:
        missing = _healed("VXLAN port", True, f"there is no VXLAN device {DEVICE}", f"{DEVICE} in {BRIDGE}, up")
        rest = [unread(name, "no device") for name in ("neighbour row", "FDB row", "VXLAN device")]
        return [firewall_hop, missing, *rest]
    link = device.link
    port = _port("VXLAN port", half.floor, link)
    if port.state is State.RIGHT:
        saw = f"{link.name}: MTU {link.mtu}, {_up(link)}, in {link.master}"
        port = _healed("VXLAN port", not link.up or link.mtu != tunnel.mtu, saw, f"MTU {tunnel.mtu}, up, in {BRIDGE}")
    saw = f"VNI {device.vni}, UDP port {device.port}, from {device.local or 'any address'}"
    wanted = f"VNI {tunnel.vni}, UDP port {tunnel.port}, from {half.vtep}"
    return [
        firewall_hop,
        port,
        _neighbour_row(half),
        _forwarding_row(half),
        _healed("VXLAN device", saw != wanted, saw, wanted),
    ]


def _neighbour_row(half: Half) -> Hop:
    row, wanted = half.floor.neighbour, f"{half.other.address} lladdr {half.other.mac} permanent"
    if row is None or not row.mac:
        return _absent("neighbour row", half, wanted)
    saw = f"{half.other.address} lladdr {row.mac} {row.state}"
    return _healed("neighbour row", saw != wanted, saw, wanted)


def _forwarding_row(half: Half) -> Hop:
    row, wanted = half.floor.forwarding, f"{half.other.mac} dst {half.other.vtep} permanent"
    if row is None:
        return _absent("FDB row", half, wanted)
    saw = f"{half.other.mac} dst {row.vtep or '-'} {row.state}" + (", with a port, VNI or device of its own" * row.own)
    return _healed("FDB row", saw != wanted, saw, wanted)


def _absent(name: str, half: Half, wanted: str) -> Hop:
    """A row that is not there. Above the eager limit that is right before somebody asked; a device that is down keeps
    none.
    """
    device = half.floor.device
    if device is not None and not device.link.up:
        return unread(name, f"none: {DEVICE} is down")
    if half.pulled:
        return make(name, False, "none yet: it is written when somebody asks (above the eager limit)", wanted, "")
    return _healed(name, True, "none", wanted)


# -- outside -------------------------------------------------------------------------------------------------------


def _outside(half: Half) -> list[Hop]:
    if half.outer is None:
        note = "the route to the other VTEP could not be read"
        return [unread("host firewall", note), unread("underlay route", note)]
    route, neighbour = half.outer
    return [_host_firewall(half, route), _underlay_route(half, route, neighbour)]


def _underlay_route(half: Half, route: Route, neighbour: Neighbour | None) -> Hop:
    name, to, need = "underlay route", half.other.vtep, half.tunnel.mtu
    wanted = f"a route to {to} that carries {need + overhead(to)}"
    if route.trouble:
        remedy = f"`ip route get {to} from {half.vtep}` shows it: restore the route"
        return make(name, True, f"{to}: {route.trouble}", wanted, remedy)
    saw = f"{to} by {route.out}" + (f" via {route.gateway}" if route.gateway else "") + f", MTU {route.mtu}"
    if not route.up:
        return make(name, True, f"{saw}, down", wanted, f"ip link set dev {route.out} up")
    if carries(route.mtu, half.vtep) < need:
        fix = f"raise the MTU of {route.out} or of the route to {need + overhead(to)}"
        return make(name, True, saw, wanted, f"{fix}, or make the overlay with a smaller -o mtu=")
    if neighbour is not None and neighbour.state == "failed":
        next_hop = route.gateway or to
        said = f"{saw}; nobody answers ARP for {next_hop}"
        return make(name, True, said, wanted, f"is {next_hop} up, and on the same network as {route.out}?")
    return make(name, False, saw, wanted, "")


def overhead(vtep: Address) -> int:
    """Bytes that VXLAN adds (RFC 7348): outer IP, UDP, its own header, the inner Ethernet header."""
    return 1500 - carries(1500, vtep)


def _host_firewall(half: Half, route: Route) -> Hop:
    """The outer packets: ours on their way out, the other's on their way in."""
    family = "ip" if half.vtep.version == 4 else "ip6"
    ways = [
        (
            _outer_packet(half, half.vtep, half.other.vtep, {"oifname": route.out, "oif": route.out, "iifname": ""}),
            [
                Gate((family, "inet"), "output"),
                Gate((family, "inet"), "postrouting"),
                Gate(("netdev",), "egress", route.out),
            ],
            outer_frame(half.vtep, half.other.vtep, half.tunnel),
            [Pass(route.out, "egress")],
        ),
        (
            _outer_packet(
                half,
                half.other.vtep,
                half.vtep,
                {"iifname": route.out, "iif": route.out, "oifname": "", "fib daddr type": "local"},
            ),
            [
                Gate(("netdev", "inet"), "ingress", route.out),
                Gate((family, "inet"), "prerouting"),
                Gate((family, "inet"), "input"),
            ],
            outer_frame(half.other.vtep, half.vtep, half.tunnel),
            [Pass(route.out, "ingress")],
        ),
    ]
    allow = f"or let UDP port {half.tunnel.port} between {half.vtep} and {half.other.vtep} pass before it"
    return _firewall("host firewall", half.host_rules, ways, allow, "")


def _overlay_firewall(half: Half, onward: str) -> Hop:
    """The inner packets between the container's port and `onward`, in both directions."""
    port, mtu = half.port, half.tunnel.mtu
    there = (
        _inner_packet(half.own, half.other, port, onward), _bridged(port, onward),
        inner_frame(half.own, half.other, mtu), [Pass(port, "ingress"), Pass(onward, "egress")],
    )  # fmt: skip
    back = (
        _inner_packet(half.other, half.own, onward, port), _bridged(onward, port),
        inner_frame(half.other, half.own, mtu), [Pass(onward, "ingress"), Pass(port, "egress")],
    )  # fmt: skip
    enter = f"myoverlay exec {half.overlay} -- "
    return _firewall("overlay firewall", half.overlay_rules, [there, back], "", enter)


def _bridged(came: str, goes: str) -> list[Gate]:
    hooks = [Gate(("bridge",), hook) for hook in ("prerouting", "forward", "postrouting")]
    return [Gate(("netdev",), "ingress", came), *hooks, Gate(("netdev",), "egress", goes)]


#: A packet through rules, and the frame that it is in through devices' traffic control.
Through: TypeAlias = tuple[Packet, Sequence[Gate], Frame, Sequence[Pass]]


def _firewall(name: str, rules: Rules, ways: Sequence[Through], allow: str, enter: str) -> Hop:
    wanted = "nothing that drops these packets"
    if rules.trouble and not rules.traffic:
        return unread(name, f"the rules could not be read: {rules.trouble}")
    try:
        ruleset = Ruleset.read(rules.listed, rules.devices) if rules.listed else None
    except ValueError as error:
        return unread(name, str(error))
    found: list[tuple[Blocked, str, str]] = []
    for packet, gates, frame, passes in ways:
        ruled = ruleset.blocks(packet, gates) if ruleset is not None else None
        if ruled is not None:
            see = f"`{enter}nft -a list table {ruled.where}` shows it: remove the rule" + (
                f", {allow}" if allow else ""
            )
            found.append((ruled, f"table {ruled.where}, {ruled.rule}", _OWN.get(ruled.where, see)))
        stopped = stops(rules.traffic, frame, passes)
        if stopped is not None:
            found.append((stopped, stopped.rule, f"{enter}tc {stopped.where}"))
    if found:
        blocked, saw, see = min(found, key=lambda one: not one[0].sure)
        return make(name, True, saw, wanted, see) if blocked.sure else unread(name, f"perhaps dropped by {saw}", see)
    if rules.trouble:
        return unread(name, f"the rules could not be read: {rules.trouble}")
    if rules.legacy:
        tables = ", ".join(sorted(set(rules.legacy)))
        return unread(name, f"nothing that is read drops; iptables-legacy has tables ({tables}), which are not judged")
    return make(name, False, "nothing is dropped", wanted, "")


#: Our own tables drop on purpose: it is what they know that is to be looked at.
_OWN = {
    "inet myoverlay": "the guard of this host does not know that VTEP on this overlay: is the other host a member of it"
    " (`myoverlay host ls`), is its source address its VTEP, and does the store answer here?",
    "bridge myoverlay": "the container speaks under a MAC or an address that is not its own:"
    " give it the one that Docker knows, or set MYOVERLAY_SPOOF",
}


def _outer_packet(half: Half, source: Address, target: Address, meta: dict[str, str | int]) -> Packet:
    ip, kind = ("ip", "ipv4") if source.version == 4 else ("ip6", "ipv6")
    fields: dict[tuple[str, str], str | int] = {
        (ip, "saddr"): source,
        (ip, "daddr"): target,
        (ip, "protocol" if ip == "ip" else "nexthdr"): "udp",
        ("udp", "dport"): half.tunnel.port,
    }
    raw = bytes(8) + b"\x08\0\0\0" + (half.tunnel.vni << 8).to_bytes(4, "big")
    return Packet(frozenset((ip, "udp")), fields, {"l4proto": "udp", "protocol": ip, "nfproto": kind, **meta}, raw)


def _inner_packet(source: End, target: End, came: str, goes: str) -> Packet:
    fields: dict[tuple[str, str], str | int] = {
        ("ether", "saddr"): source.mac,
        ("ether", "daddr"): target.mac,
        ("ether", "type"): "ip",
        ("ip", "saddr"): source.address,
        ("ip", "daddr"): target.address,
    }
    meta = {"iifname": came, "oifname": goes, "ibrname": BRIDGE, "obrname": BRIDGE, "protocol": "ip", "nfproto": "ipv4"}
    return Packet(frozenset(("ether", "ip")), fields, meta)


# -- words ---------------------------------------------------------------------------------------------------------


def _up(link: Link) -> str:
    return "up" if link.up else "down"


def _healed(name: str, wrong: bool, saw: str, wanted: str) -> Hop:
    """A hop that the reconciler looks after."""
    return make(name, wrong, saw, wanted, HEALED, heals=True)
