"""What lies on the path of a packet, read and nothing changed: in a container, in an overlay namespace, on the host.

By struct, each reading on a socket of its own. Sources: rtnetlink(7), include/uapi/linux/{neighbour,if_link}.h,
net/core/rtnetlink.c (IFLA_TARGET_NETNSID), net/ipv4/route.c (what a look-up of a bad route answers).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from myoverlay.errors import KernelRefused, MyoverlayError, Unknown
from myoverlay.kernel import linkforms, neigh, netns, observe, ruleset, traffic, underlay
from myoverlay.kernel.channel import Channel
from myoverlay.kernel.linkforms import IFINFO, Seen
from myoverlay.kernel.neigh import NDA_DST, NDA_IFINDEX, NDA_LLADDR, NDM, RTM_GETNEIGH
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.rtnetlink import Request, Wire, attribute, attributes
from myoverlay.path import Device, Floor, Forwarding, Link, Neighbour, Room, Route, Rules
from myoverlay.values import Address, Mac

_RTM_GETLINK = 18
IFLA_TARGET_NETNSID = 46
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_METRICS, RTAX_MTU = 1, 4, 5, 7, 8, 2
RTA_SRC = 2
#: What a look-up answers where a route forbids, or none leads there.
_NO_WAY = {
    errno.ENETUNREACH: "no route leads there",
    errno.EHOSTUNREACH: "a route of type unreachable",
    errno.EACCES: "a route of type prohibit",
    errno.EINVAL: "a route of type blackhole",
}
_PROC = Path("/proc")


def floor(ns: Namespace, bridge: str, device: str, address: Address | None, macs: Sequence[Mac]) -> Floor:
    """The overlay namespace, with the rows for the peer's `address` and `macs[0]`, and bridge rows of all `macs`.

    Raises KernelRefused.
    """
    with contextlib.closing(Wire(ns)) as wire:
        there = observe.links(wire)
        names = {link.index: link.name for link in there.values()}
        found = {name: _link(link, names) for name, link in there.items()}
        tunnel = there.get(device)
        tunnel = tunnel if tunnel is not None and tunnel.kind == "vxlan" else None
        switch = there.get(bridge)
        rows = neigh.bridge_rows(wire, switch.index) if switch is not None and switch.kind == "bridge" else {}
        places = {mac: names[port] for port, held in rows.items() for mac in held if mac in macs and port in names}
        neighbour = _neighbour(wire, address, tunnel.index) if tunnel is not None and address is not None else None
        forwarding = _forwarding(wire, macs[0], tunnel.index) if tunnel is not None and address is not None else None
    return Floor(
        bridge=found.get(bridge) if switch is not None and switch.kind == "bridge" else None,
        device=_device(tunnel, found[device]) if tunnel is not None else None,
        links=found,
        macs={str(mac): name for mac, name in places.items()},
        neighbour=neighbour,
        forwarding=forwarding,
    )


def room(ns: Namespace, address: Address, other: Address) -> Room:
    """A container's namespace: the interface that has `address`, and how it would reach `other`. KernelRefused."""
    with contextlib.closing(Wire(ns)) as wire:
        by_index = {link.index: link for link in observe.links(wire).values()}
        place = next((place for place in underlay.places(wire) if place.address == address), None)
        link = by_index.get(place.index) if place is not None else None
        route = route_to(wire, other, None)
        row = _neighbour(wire, other, link.index) if link is not None else None
        shown = _link(link, {}) if link is not None else None
        if shown is not None and link is not None:
            shown = shown._replace(arp=not _flags(wire, link.index) & 0x80)  # IFF_NOARP
        sieves = traffic.read(wire, {link.index: link.name}) if link is not None else ()
        return Room(shown, route, row, traffic=sieves)


def far_link(ns: Namespace, port: str) -> Link | None:
    """The other end of a veth, wherever it is: read from here, by the number this namespace knows the other by.

    None where there is no such port, or the other end is in the same namespace or gone. Raises KernelRefused.
    """
    with contextlib.closing(Channel(ns)) as channel:
        near = channel.find(port)
        if near is None or near.far is None or near.far_ns is None:
            return None
        target = attribute(IFLA_TARGET_NETNSID, struct.pack("=i", near.far_ns))
        request = Request(_RTM_GETLINK, 0, IFINFO.pack(0, 0, near.far, 0, 0) + target)
        try:
            body = channel.wire.one(request, f"looking at the other end of {port}").body
        except KernelRefused as said:
            if said.code == errno.ENODEV:
                return None
            raise
        link = linkforms.decode_link(body)
        return _link(link, {}) if link is not None else None


def container_of(ns: Namespace, port: str, hints: Sequence[Path]) -> Namespace | None:
    """The namespace that the other end of a veth is in, opened; None where nothing here leads to it.

    Looked through are `hints` (files, or directories of pins), then the processes of this machine as far as this one
    sees them: none but its own, inside a managed plugin. Raises KernelRefused.
    """
    with contextlib.closing(Channel(ns)) as channel:
        near = channel.find(port)
        if near is None or near.far_ns is None:
            return None
        tried: set[int] = set()
        for path in _candidates(hints):
            try:
                found = netns.open_path(path)
            except Unknown:
                continue
            if found.inode in tried or found.inode == ns.inode or channel.nsid(found) != near.far_ns:
                tried.add(found.inode)
                found.close()
                continue
            return found
    return None


def _candidates(hints: Sequence[Path]) -> Iterator[Path]:
    for hint in hints:
        if hint.is_dir():
            yield from sorted(hint.iterdir())
        else:
            yield hint
    seen: set[int] = set()
    for name in sorted(os.listdir(_PROC)):
        if not name.isdecimal():
            continue
        path = _PROC / name / "ns" / "net"
        try:
            inode = os.stat(path).st_ino
        except OSError:
            continue  # it ended
        if inode not in seen:
            seen.add(inode)
            yield path


def outer(ns: Namespace, target: Address, source: Address) -> tuple[Route, Neighbour | None]:
    """The host's way to a VTEP: its route, and the neighbour row of the next hop. Raises KernelRefused."""
    with contextlib.closing(Wire(ns)) as wire:
        route = route_to(wire, target, source)
        if route.trouble:
            return route, None
        index = next((link.index for link in observe.links(wire).values() if link.name == route.out), 0)
        return route, _neighbour(wire, route.gateway or target, index) if index and route.out != "lo" else None


def route_to(wire: Wire, target: Address, source: Address | None) -> Route:
    """Where a packet would go. Raises KernelRefused where the kernel cannot even be asked."""
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    size = 8 * len(target.packed)
    body = underlay.RTMSG.pack(family, size, size if source else 0, 0, 0, 0, 0, 0, 0)
    body += attribute(RTA_DST, target.packed)
    body += attribute(RTA_SRC, source.packed) if source else b""
    try:
        raw = wire.one(Request(underlay.RTM_GETROUTE, 0, body), f"finding the route to {target}").body
    except KernelRefused as said:
        if said.code == errno.EINVAL and source is not None:
            # A blackhole says so too, and so does a source address that this host does not have.
            found = route_to(wire, target, None)
            return found if found.trouble else found._replace(trouble=f"{source} is no address of this host")
        if said.code in _NO_WAY:
            return Route(trouble=_NO_WAY[said.code])
        raise
    given = attributes(raw, underlay.RTMSG.size)
    out, gateway, chosen = given.get(RTA_OIF, b""), given.get(RTA_GATEWAY, b""), given.get(RTA_PREFSRC, b"")
    link = observe.link(wire, underlay.index_in(out)) if out else None
    metric = attributes(given.get(RTA_METRICS, b""), 0).get(RTAX_MTU, b"")
    limit = struct.unpack("=I", metric)[0] if len(metric) == 4 else 0
    carried = link.mtu if link is not None else 0
    return Route(
        out=link.name if link is not None else "",
        gateway=Address.unpack(gateway) if len(gateway) in (4, 16) else None,
        source=Address.unpack(chosen) if len(chosen) in (4, 16) else None,
        mtu=min(limit, carried) if limit else carried,
        up=link.up if link is not None else False,
        trouble="" if link is not None else "it leaves by no link that is there",
    )


def _link(link: Seen, names: dict[int, str]) -> Link:
    state = link.port.get("IFLA_BRPORT_STATE", 3)
    master = names.get(link.master or 0, "")
    return Link(link.name, link.kind, link.mac, link.mtu, link.up, master, state == 3)


def _device(link: Seen, shown: Link) -> Device:
    data = link.data
    local = data.get("IFLA_VXLAN_LOCAL") or data.get("IFLA_VXLAN_LOCAL6") or ""
    return Device(shown, data.get("IFLA_VXLAN_ID", 0), data.get("IFLA_VXLAN_PORT", 0), str(local))


def _flags(wire: Wire, index: int) -> int:
    body = wire.one(Request(_RTM_GETLINK, 0, IFINFO.pack(0, 0, index, 0, 0)), f"looking at interface {index}").body
    return linkforms.flags_of(body)


def _neighbour(wire: Wire, address: Address, index: int) -> Neighbour | None:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    request = NDM.pack(family, index, 0, 0, 0) + attribute(NDA_DST, address.packed)
    for answer in wire.ask([Request(RTM_GETNEIGH, 0, request)]):
        row = neigh.seen_row(answer.body, index)
        if row is not None:
            return Neighbour(row.to, row.state)
    return None


def _forwarding(wire: Wire, mac: Mac, index: int) -> Forwarding | None:
    """The device's own row of a MAC: found in its table, which the kernel filters by device."""
    which = attribute(NDA_IFINDEX, struct.pack("=I", index))
    for body in wire.dump(RTM_GETNEIGH, NDM.pack(socket.AF_BRIDGE, 0, 0, 0, 0) + which):
        found = attributes(body, NDM.size)
        row = neigh.seen_row(body, index) if found.get(NDA_LLADDR) == mac.packed else None
        if row is not None and row.table == "fdb":
            own = bool({neigh.NDA_PORT, neigh.NDA_VNI, NDA_IFINDEX} & found.keys())
            return Forwarding(row.to, row.state, own)
    return None


def rules(ns: Namespace, patience: float, devices: Sequence[str] = ()) -> Rules:
    """The firewall's rules there, as `nft` prints them (JSON; then the chains of devices, which older ones leave out
    of it), within `patience` seconds; and traffic control on these devices. Raises KernelRefused.
    """
    with contextlib.closing(Wire(ns)) as wire:
        names = {link.index: link.name for link in observe.links(wire).values() if link.name in devices}
        sieves = traffic.read(wire, names)
    return _listed(ns, patience)._replace(traffic=sieves)


def _listed(ns: Namespace, patience: float) -> Rules:
    import subprocess

    def run(*words: str) -> str:
        program = next((one for one in ("/usr/sbin/nft", "/sbin/nft") if os.access(one, os.X_OK)), "nft")
        done = subprocess.run(
            [program, *words],
            capture_output=True,
            text=True,
            timeout=patience,
            stdin=subprocess.DEVNULL,
            env={"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            check=False,
        )
        if done.returncode != 0:
            raise OSError(0, done.stderr.strip().partition("\n")[0] or f"nft ended with {done.returncode}")
        return done.stdout

    def inside() -> Rules:
        legacy = ruleset.legacy_here()
        try:
            listed = run("-j", "list", "ruleset")
            return Rules(listed, run("list", "chains", "netdev") if '"netdev"' in listed else "", "", legacy)
        except FileNotFoundError:
            return Rules(trouble="there is no program nft (package nftables)", legacy=legacy)
        except subprocess.TimeoutExpired:
            return Rules(trouble=f"nft did not answer within {patience:g} s", legacy=legacy)
        except OSError as error:
            return Rules(trouble=f"nft: {error.strerror or error}", legacy=legacy)

    try:
        return ns.call(inside, 3 * patience)
    except MyoverlayError as error:
        return Rules(trouble=str(error))
