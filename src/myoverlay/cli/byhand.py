"""Overlays by hand: the driver's plan and kernel, and nothing else of it. No daemon, no journal, no Docker.

What exists is what the kernel holds: a named namespace with a VXLAN device on a bridge is an overlay, whoever made it.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from myoverlay.cli.words import Places
from myoverlay.errors import Clash, KernelRefused, MyoverlayError, Refused, Unknown
from myoverlay.kernel import netns
from myoverlay.kernel.linkforms import Observed
from myoverlay.kernel.links import Links
from myoverlay.kernel.neigh import Tables
from myoverlay.kernel.netns import Namespace
from myoverlay.plan import shape
from myoverlay.values import MTU_LIMITS, VXLAN_OVERHEAD, Address, Bridge, Subnet, Veth, Vxlan, check_mtu

#: Seconds that one step in the kernel may take.
PATIENCE = 10.0
#: Where the underlay cannot be told: Ethernet's 1500 less what VXLAN takes.
USUAL_MTU = 1450
#: Where Docker pins the namespaces of its own overlay driver: looked through for the holder of a VNI.
DOCKERS_PINS = Path("/run/docker/netns")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_LINK = re.compile(r"[^\s/:]{1,15}")


def soon() -> float:
    return time.monotonic() + PATIENCE


def check_name(name: str) -> str:
    """The name of a namespace. Raises Refused: it becomes a file's."""
    if not _NAME.fullmatch(name):
        raise Refused(
            f"{name!r} is no name for a namespace: 1 to 64 of A-Z a-z 0-9 . _ - are, the first no dot or dash"
        )
    return name


def check_link(name: str) -> str:
    """The name of an interface. Raises Refused."""
    if not _LINK.fullmatch(name) or name in (".", ".."):
        raise Refused(f"{name!r} is no interface's name: 1 to 15 bytes without blank, slash and colon are")
    return name


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """An overlay as it is asked for. `local` and `mtu` are found out where they are None."""

    name: str
    bridge: str
    device: str
    address: Address
    prefixlen: int
    vni: int
    port: int
    local: str | None = None
    mtu: int | None = None
    learning: bool = True
    proxy: bool = True
    l2miss: bool = True
    l3miss: bool = True


class Overlay(msgspec.Struct, frozen=True, kw_only=True):
    """An overlay as it is there. `owner` is `hand` or `plugin`; `faults` name what is not in order."""

    name: str
    owner: str
    bridge: Bridge
    vxlan: Vxlan
    cables: tuple[Veth, ...]
    others: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def subnet(self) -> Subnet | None:
        """What the bridge's address lies in, if it has one."""
        if self.bridge.address is None:
            return None
        bits = 8 * len(self.bridge.address.packed) - self.bridge.prefixlen
        base = self.bridge.address.number >> bits << bits
        return Subnet(
            f"{Address.unpack(base.to_bytes(len(self.bridge.address.packed), 'big'))}/{self.bridge.prefixlen}"
        )


def read(name: str, owner: str, seen: tuple[Observed, ...]) -> Overlay | None:
    """The overlay that these links make, or None where no VXLAN device is a bridge's port."""
    values = [one.value for one in seen if one.value is not None]
    vxlans = [value for value in values if isinstance(value, Vxlan) and value.bridge]
    if not vxlans:
        return None
    bridge = next(value for value in values if isinstance(value, Bridge) and value.name == vxlans[0].bridge)
    cables = tuple(value for value in values if isinstance(value, Veth) and value.bridge == bridge.name)
    known = {bridge.name, vxlans[0].name, *(cable.port for cable in cables)}
    return Overlay(
        name=name,
        owner=owner,
        bridge=bridge,
        vxlan=vxlans[0],
        cables=cables,
        others=tuple(one.name for one in seen if one.name not in known),
        faults=tuple(f"{one.name}: {fault}" for one in seen for fault in one.faults),
    )


def things(spec: Spec, links: Links) -> tuple[Bridge, Vxlan]:
    """The two links that make the overlay. Raises Refused where the underlay does not fit."""
    subnet_of = Address(spec.address)
    local: Address | None = None
    mtu = USUAL_MTU
    try:
        found, _, underlay = links.address_of(spec.local or "", deadline=soon())
        mtu = min(underlay - VXLAN_OVERHEAD[found.version], MTU_LIMITS[1])
        local = found if spec.local else None
    except Refused:
        if spec.local:
            raise
    try:
        mtu = check_mtu(spec.mtu or mtu)
    except ValueError as error:
        raise Refused(str(error)) from None
    mac = shape.mac_for(subnet_of)
    flags = {"learning": spec.learning, "proxy": spec.proxy, "l2miss": spec.l2miss, "l3miss": spec.l3miss}
    return (
        Bridge(name=check_link(spec.bridge), mac=mac, mtu=mtu, address=spec.address, prefixlen=spec.prefixlen),
        Vxlan(
            name=check_link(spec.device),
            bridge=spec.bridge,
            vni=spec.vni,
            port=spec.port,
            local=local,
            mtu=mtu,
            **flags,
        ),
    )


class ByHand:
    """Makes, finds and removes overlays. `links` are the host's."""

    def __init__(self, places: Places, links: Links) -> None:
        self.places = places
        self.links = links

    # -- finding ---------------------------------------------------------------------------------------------------

    def owned(self, ns: Namespace) -> bool:
        """Does the plugin hold this namespace, under whatever name?"""
        try:
            return any(
                path.stat().st_ino == ns.inode and netns.is_pinned(path) for path in self.places.plugin.iterdir()
            )
        except OSError:
            return False

    @contextmanager
    def namespace(self, name: str, *, write: bool) -> Iterator[tuple[Namespace, str]]:
        """The overlay's namespace, open, and its owner. Raises Unknown, and Refused where `write` is not ours to do."""
        path, owner = self.places.named / check_name(name), "hand"
        if not netns.is_pinned(path) and netns.is_pinned(self.places.plugin / name):
            path = self.places.plugin / name
        elif not netns.is_pinned(path):
            raise Unknown(
                f"there is no namespace {name} below {self.places.named}:"
                f" `myoverlay overlay ls` lists overlays, `myoverlay overlay create {name}` makes one"
            )
        with netns.open_path(path) as ns:
            if self.owned(ns):
                owner = "plugin"
            if write and owner == "plugin":
                raise Refused(
                    f"overlay {name} belongs to the plugin: use `docker network connect` to bring a container into it"
                    " and `docker network rm` to remove it"
                )
            yield ns, owner

    @contextmanager
    def open(self, name: str, *, write: bool) -> Iterator[tuple[Namespace, Overlay]]:
        """An overlay with its namespace open. Raises Unknown and Refused."""
        with self.namespace(name, write=write) as (ns, owner):
            found = read(name, owner, self.links.observe(ns, deadline=soon()))
            if found is None:
                raise Refused(f"namespace {name} is no overlay: it has no VXLAN device on a bridge")
            yield ns, found

    @contextmanager
    def tables(self, name: str, *, write: bool) -> Iterator[tuple[Tables, Overlay]]:
        """The rows of an overlay's VXLAN device."""
        with self.open(name, write=write) as (ns, overlay), self.tables_of(ns, overlay) as tables:
            yield tables, overlay

    def tables_of(self, ns: Namespace, overlay: Overlay) -> Tables:
        """The same where its namespace is open."""
        index = self.links.ifindex(ns, overlay.vxlan.name, deadline=soon())
        if index is None:
            raise Unknown(f"{overlay.vxlan.name} of overlay {overlay.name} went away")
        return Tables(ns, index)

    def all(self) -> list[Overlay]:
        """Every overlay of this host that has a name: ours, somebody's by `ip`, and the plugin's."""
        found: dict[int, Overlay] = {}
        for folder in (self.places.named, self.places.plugin):
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if not netns.is_pinned(path):
                    continue
                with ExitStack() as stack:
                    try:
                        ns = stack.enter_context(netns.open_path(path))
                        owner = "plugin" if self.owned(ns) else "hand"
                        overlay = read(path.name, owner, self.links.observe(ns, deadline=soon()))
                    except (Unknown, KernelRefused):
                        continue  # gone meanwhile, or no network namespace
                    if overlay is not None:
                        found.setdefault(ns.inode, overlay)
        return list(found.values())

    # -- making ----------------------------------------------------------------------------------------------------

    def create(self, spec: Spec, *, replace: bool) -> tuple[str, tuple[str, ...]]:
        """Make the overlay; all of it or nothing. Returns `created`, `replaced` or `there`, and what could not be set.

        Raises Clash where the name, or VNI and port, are somebody else's.
        """
        wanted = things(spec, self.links)
        path = self.places.named / check_name(spec.name)
        outcome = "created"
        if netns.is_pinned(self.places.plugin / spec.name):
            raise Clash(f"{spec.name} is the name of an overlay of the plugin: give this one another")
        if netns.is_pinned(path):
            outcome = self._make_room(spec, wanted, replace=replace)
        netns.share(self.places.named)
        born = not netns.is_pinned(path)
        with netns.create(path) as ns:
            try:
                return outcome, self._build(ns, spec, wanted)
            except BaseException:
                if outcome != "there":
                    self._take_back(ns, wanted)
                if born:
                    netns.delete(path)
                raise

    def _build(self, ns: Namespace, spec: Spec, wanted: tuple[Bridge, Vxlan]) -> tuple[str, ...]:
        names = {thing.name for thing in wanted}
        seen = self.links.observe(ns, deadline=soon())
        known = {one.name: None if one.faults else one.value for one in seen if one.name in names}
        unset: list[str] = []
        try:
            for step in shape.diff(wanted, known):
                assert isinstance(step, shape.Ensure), "what is not ours was left out of the comparison"
                unset += self.links.ensure(ns, step.thing, deadline=soon())
        except KernelRefused as error:
            if error.code not in (errno.EEXIST, errno.EADDRINUSE):
                raise
            raise self._taken(spec, self._holder(spec)) from error
        return tuple(unset)

    def _holder(self, spec: Spec) -> str | None:
        search = (self.places.named, self.places.plugin, DOCKERS_PINS)
        return self.links.holder_of(spec.vni, spec.port, search=search, deadline=soon())

    def _taken(self, spec: Spec, holder: str | None) -> Clash:
        return Clash(
            f"VNI {spec.vni} on UDP port {spec.port} is taken on this host by"
            f" {holder or 'somebody who cannot be seen'}: give another --vni or --port, or remove that"
        )

    def _take_back(self, ns: Namespace, wanted: tuple[Bridge, Vxlan]) -> None:
        """The VXLAN device goes by itself, first: a namespace ends in the background, with VNI and port still taken."""
        for thing in reversed(wanted):
            try:
                self.links.remove(ns, thing.name, deadline=soon())
            except MyoverlayError:
                continue  # the failure that led here is the one to tell

    def _make_room(self, spec: Spec, wanted: tuple[Bridge, Vxlan], *, replace: bool) -> str:
        """What to do about the namespace that has the name: use it, keep what it holds, or remove that."""
        name = spec.name
        with self.namespace(name, write=True) as (ns, _):
            seen = self.links.observe(ns, deadline=soon())
        if not seen:
            return "created"
        there = {one.name: one.value for one in seen}
        if not replace and all(there.get(thing.name) == thing for thing in wanted):
            return "there"
        overlay = read(name, "hand", seen)
        if not replace:
            what = described(overlay) if overlay else f"{', '.join(there)}, no overlay"
            raise Clash(
                f"namespace {name} is there and differs ({what}): --replace removes it first, or give another name"
            )
        holder = self._holder(spec)
        if holder is not None and not holder.endswith(f" {self.places.named / name}"):
            raise self._taken(spec, holder)  # said while the old one is still there
        self.delete(name)
        return "replaced"

    def delete(self, name: str) -> bool:
        """Remove an overlay with its cables; False where it is not there. Raises Refused for any other namespace."""
        path = self.places.named / check_name(name)
        if not netns.is_pinned(path) and not netns.is_pinned(self.places.plugin / name):
            return False
        with self.namespace(name, write=True) as (ns, _):
            seen = self.links.observe(ns, deadline=soon())
            if not any(isinstance(one.value, Vxlan | Bridge) for one in seen):
                raise Refused(f"namespace {name} is no overlay and is left alone: `ip netns delete {name}` removes it")
            # Each by itself: whoever has a process in the namespace keeps it alive, and with it VNI and cables.
            order = sorted(seen, key=lambda one: (not isinstance(one.value, Vxlan), isinstance(one.value, Bridge)))
            for one in order:
                if one.value is not None:
                    self.links.remove(ns, one.name, deadline=soon())
        netns.delete(path)
        return True


def flags(vxlan: Vxlan) -> list[str]:
    """Its switches that are on, as `ip` calls them."""
    return [flag for flag in ("proxy", "learning", "l2miss", "l3miss") if getattr(vxlan, flag)]


def described(overlay: Overlay) -> str:
    """All that `create` has an option for, in a phrase."""
    bridge, vxlan = overlay.bridge, overlay.vxlan
    address = f"{bridge.address}/{bridge.prefixlen}" if bridge.address else "no address"
    local = f"local {vxlan.local}" if vxlan.local else "no local"
    return (
        f"{bridge.name} with {address}, {vxlan.name} with VNI {vxlan.vni}, port {vxlan.port}, {local},"
        f" MTU {vxlan.mtu}, {' '.join(flags(vxlan)) or 'no flags'}"
    )
