"""Cables by hand: a container, any other namespace, the host itself or a VM's tap becomes a port of an overlay."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from myoverlay.cli.byhand import ByHand, Overlay, check_link, soon
from myoverlay.cli.words import Places
from myoverlay.errors import Clash, MyoverlayError, Refused, Unknown
from myoverlay.kernel import netns
from myoverlay.kernel.links import Links
from myoverlay.kernel.netns import Namespace
from myoverlay.plan import shape
from myoverlay.values import Address, Mac, Veth

#: Seconds until a port must forward after its far end came up (net/core/link_watch.c: at once, or after one).
OPENING = 1.5
TAP = "tap:"
#: What an interface is called where nothing else was said: in a container as Docker does, on the host as nobody does.
IN_CONTAINER, ON_HOST = "eth0", "overlay0"


class Target(msgspec.Struct, frozen=True):
    """What is attached: its namespace, how people call it, what its interface is called by default."""

    ns: Namespace
    said: str
    link: str


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A cable as it is asked for; what is None is found out."""

    address: Address
    prefixlen: int | None = None
    mac: Mac | None = None
    link: str | None = None


def tap_name(text: str) -> str | None:
    """The name in `tap:NAME`, or None for any other target."""
    return check_link(text.removeprefix(TAP)) if text.startswith(TAP) else None


@contextmanager
def target(text: str, places: Places, container: Callable[[str], int]) -> Iterator[Target]:
    """The namespace that is meant, open: `host`, a path, a pid, a named one, else a container.

    `container` finds the pid of a container, and is asked only then. Raises Unknown and Refused.
    """
    with netns.current() as home:
        if text == "host":
            yield Target(home, "the host", ON_HOST)
            return
        path, said = _path(text, places, container)
        try:
            ns = netns.open_path(path)
        except Unknown:
            if said.startswith(("pid", "container")):
                raise Unknown(f"{said} does not run") from None
            raise
        with ns:
            if ns.inode == home.inode:
                raise Refused(f"{said} lives in the host's own network namespace: attach `host`")
            yield Target(ns, said, IN_CONTAINER)


def _path(text: str, places: Places, container: Callable[[str], int]) -> tuple[Path, str]:
    kind, colon, name = text.partition(":")
    if colon and kind in ("pid", "netns", "container"):
        text = name
    else:
        kind = ""
    if not kind and "/" in text:
        return Path(text), f"namespace {text}"
    if kind == "pid" or (not kind and text.isascii() and text.isdecimal()):
        return Path(f"/proc/{text}/ns/net"), f"pid {text}"
    if kind == "netns" or (not kind and netns.is_pinned(places.named / text)):
        return places.named / text, f"namespace {text}"
    return Path(f"/proc/{container(text)}/ns/net"), f"container {text}"


class Cables:
    """Lays and removes cables of overlays."""

    def __init__(self, hand: ByHand) -> None:
        self._hand = hand
        self._links = hand.links

    def attach(self, name: str, target: Target, wish: Wish) -> tuple[Veth, int, bool]:
        """Lay a cable; all of it or nothing. Returns it, its prefix length, and whether it was laid just now.

        Raises Clash where address, MAC or interface name are taken, Refused where the address does not fit.
        """
        link = check_link(wish.link or target.link)
        with self._hand.open(name, write=True) as (ns, overlay), Links(target.ns) as there:
            if ns.inode == target.ns.inode:
                raise Refused(f"{target.said} is overlay {name} itself")
            length = fitting(overlay, wish)
            cable = shape.cable(
                overlay.bridge.name, link, wish.address, wish.mac or Mac.of(wish.address), overlay.vxlan.mtu
            )
            ends = there.far_ends(ns, deadline=soon())
            laid = next((one for one in overlay.cables if ends.get(one.port) == link), None)
            if laid is not None and (laid.address, laid.mac) != (cable.address, cable.mac):
                has = f"{laid.address or 'an address'} and {laid.mac}"
                raise Clash(f"{link} of {target.said} is attached to overlay {name} with {has}: detach it first")
            self._refuse_taken(ns, overlay, cable, own=laid)
            if laid is None and there.ifindex(target.ns, link, deadline=soon()) is not None:
                raise Clash(f"{target.said} has an interface {link} already: give the new one another --name")
            try:
                there.ensure(ns, cable, deadline=soon())
                there.equip(target.ns, link, wish.address, length, deadline=soon())
                self._wait_open(there, ns, cable.port)
            except BaseException:
                if laid is None:
                    self._take_back(ns, cable.port)
                raise
            return cable, length, laid is None

    def attach_tap(self, name: str, tap: str, wish: Wish) -> tuple[Veth, int, bool]:
        """Make a tap a port of the overlay; its address and MAC are the VM's, who sets them itself."""
        with self._hand.open(name, write=True) as (ns, overlay):
            length = fitting(overlay, wish)
            mac = wish.mac or Mac.of(wish.address)
            cable = shape.tap(overlay.bridge.name, tap, wish.address, mac, overlay.vxlan.mtu)
            laid = next((one for one in overlay.cables if one.port == tap), None)
            if laid is not None and (laid.link, laid.address, laid.mac) != (None, cable.address, cable.mac):
                raise Clash(f"{tap} is a port of overlay {name} with {laid.address} and {laid.mac}: detach it first")
            self._refuse_taken(ns, overlay, cable, own=laid)
            if laid is None and self._links.ifindex(ns, tap, deadline=soon()) is not None:
                raise Clash(f"overlay {name} has an interface {tap} already: give the tap another name")
            try:
                self._links.ensure(ns, cable, deadline=soon())
            except BaseException:
                if laid is None:
                    self._take_back(ns, tap)
                raise
            return cable, length, laid is None

    def detach(self, name: str, target: Target, link: str | None) -> list[str]:
        """Remove the target's cables into the overlay, or the one of that name. Returns the interfaces that went."""
        with self._hand.open(name, write=True) as (ns, _), Links(target.ns) as there:
            ends = {port: far for port, far in there.far_ends(ns, deadline=soon()).items() if link in (None, far)}
            for port in ends:
                self._links.remove(ns, port, deadline=soon())
            return list(ends.values())

    def detach_tap(self, name: str, tap: str) -> list[str]:
        with self._hand.open(name, write=True) as (ns, overlay):
            there = [one.port for one in overlay.cables if one.port == tap and one.link is None]
            for port in there:
                self._links.remove(ns, port, deadline=soon())
            return there

    def _take_back(self, ns: Namespace, port: str) -> None:
        with contextlib.suppress(MyoverlayError):  # the failure that led here is the one to tell
            self._links.remove(ns, port, deadline=soon())

    def _wait_open(self, links: Links, ns: Namespace, port: str) -> None:
        """So that the first packet after this command passes."""
        ends = time.monotonic() + OPENING
        while not links.forwards(ns, port, deadline=soon()) and time.monotonic() < ends:
            time.sleep(0.002)

    def _refuse_taken(self, ns: Namespace, overlay: Overlay, cable: Veth, own: Veth | None) -> None:
        others = [one for one in overlay.cables if own is None or one.port != own.port]
        if own is None and len(others) >= shape.MAX_ENDPOINTS:
            raise Refused(f"overlay {overlay.name} has {len(others)} cables, and a bridge takes no more")
        for one in others:
            where = f"{one.link} behind port {one.port}" if one.link else f"tap {one.port}"
            if one.address == cable.address:
                raise Clash(f"{cable.address} is taken in overlay {overlay.name} by {where}")
            if one.mac == cable.mac:
                raise Clash(f"{cable.mac} is taken in overlay {overlay.name} by {where}: give another --mac")
        with self._hand.tables_of(ns, overlay) as tables:
            for row in tables.everything():
                if row.table == "arp" and row.key == cable.address and row.to not in ("", cable.mac):
                    raise Clash(
                        f"{cable.address} is taken in overlay {overlay.name}: {overlay.vxlan.name} knows it at {row.to}"
                        " elsewhere (`myoverlay arp del` forgets that)"
                    )


def fitting(overlay: Overlay, wish: Wish) -> int:
    """The prefix length, where the address can be somebody's in the overlay. Raises Refused and Clash."""
    subnet, address = overlay.subnet, wish.address
    if subnet is None:
        if wish.prefixlen is None:
            raise Refused(f"{overlay.bridge.name} of overlay {overlay.name} has no address: write {address}/LEN")
        return wish.prefixlen
    if wish.prefixlen not in (None, subnet.prefixlen):
        own = f"{overlay.bridge.address}/{subnet.prefixlen}"
        raise Refused(
            f"{address}/{wish.prefixlen} has the wrong prefix length:"
            f" {overlay.bridge.name} of overlay {overlay.name} has {own}, so it is /{subnet.prefixlen}"
        )
    if not subnet.is_host(address):
        raise Refused(f"{address} is no host's address in {subnet}, the subnet of overlay {overlay.name}")
    if address == overlay.bridge.address:
        raise Clash(f"{address} is taken in overlay {overlay.name} by {overlay.bridge.name} itself")
    return subnet.prefixlen
