"""The only writer to the kernel: makes an overlay namespace hold what the plan says, and counts each repair.

Every cause ends here: a call from Docker, a change in the store, a miss, a restart. The caller holds the lock of the
overlay.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from myoverlay.egress import NEAR
from myoverlay.errors import Clash, KernelRefused, MyoverlayError
from myoverlay.host.binding import Binding
from myoverlay.host.cabling import Cabling
from myoverlay.host.egress import Egress
from myoverlay.host.ground import Ground
from myoverlay.host.guard import Guard
from myoverlay.host.leftovers import Leftovers
from myoverlay.kernel import netns
from myoverlay.kernel.links import Links
from myoverlay.kernel.linkwork import BRIDGE_FILTERS
from myoverlay.kernel.neigh import Tables
from myoverlay.kernel.pins import Pins
from myoverlay.plan import guard as guarding
from myoverlay.plan import rows, shape
from myoverlay.plan.claims import Touched
from myoverlay.tally import Tally
from myoverlay.values import Address, Endpoint, Fdb, Mac, Neigh, Network, OverlayName, Record, Veth

log = logging.getLogger(__name__)

#: Where others pin namespaces: looked through for the holder of a VNI.
FOREIGN_PINS = (Path("/run/netns"), Path("/run/docker/netns"))
#: What a container's end is called (`Endpoint.link`).
_LINK = re.compile(r"mo[0-9a-f]{12}")


class Finding(msgspec.Struct, frozen=True):
    """What a look at an overlay's links found, without touching anything."""

    #: Links are missing, not as they should be, or there though nobody asks for them.
    wrong: bool
    #: An endpoint's cable is gone: its container's namespace died and took it along.
    dead: bool


class Converger:
    """Plans, compares and applies, for one overlay at a time."""

    def __init__(
        self,
        links: Links,
        pins: Pins,
        tally: Tally,
        leftovers: Leftovers,
        open_ground: Callable[[netns.Namespace, int, Iterable[str]], Ground] = Ground,
        resolver: Address | None = None,
        guard: Guard | None = None,
        binding: Binding | None = None,
        egress: Egress | None = None,
    ) -> None:
        """`resolver`: where names are asked in every overlay namespace; None where they are not answered.

        `guard`: told of each overlay before its link goes up, and of each VTEP before a row leads to it.
        `binding`: told of each endpoint before its cable is there. `egress`: told of overlays.
        """
        self.resolver = resolver
        self.guard = guard
        self.binding = binding
        self.egress = egress
        self.cabling = Cabling(links, binding)
        self._links = links
        self._pins = pins
        self._tally = tally
        self._leftovers = leftovers
        self._open_ground = open_ground
        #: Called with what was put right: overlay ("" for none), reason, each thing in words.
        self.on_repair: Callable[[str, str, Sequence[str]], None] = lambda *_: None
        #: Called with rows before they are written, or (True) taken away.
        self.on_write: Callable[[Ground, Collection[Neigh | Fdb], bool], None] = lambda *_: None

    def _repaired(self, overlay: str, reason: str, *things: str) -> None:
        self._tally.add("repairs", reason, len(things))
        self.on_repair(overlay, reason, things)

    # -- a whole overlay -------------------------------------------------------------------------------------------

    def overlay(self, network: Network, endpoints: Sequence[Endpoint], deadline: float) -> Ground:
        """Build the overlay namespace, or adopt the one that is there; surplus links go, as far as the brake lets.

        Ports of endpoints whose cable is gone are not made anew: their container is gone too. One that has not joined
        has none yet: whoever was ended between CreateEndpoint's answer and the cable lays it now.
        """
        born = not self._pins.is_there(network.overlay)
        if self.guard is not None:  # what runs already is not ended for want of a guard
            self.guard.cover(network, strict=born)
        namespace, bound = self._pins.create(network.overlay), None
        try:
            if self.binding is not None:
                bound = self.binding.open(namespace, network, endpoints, strict=born)
            seen = self._seen(namespace, network, deadline)
            kept = [one for one in endpoints if one.port in seen or not (born or one.joined)]
            self._fit(namespace, network, kept, seen, frozenset(), deadline, born)
            ground = self._open(namespace, network, kept, deadline)
        except BaseException:
            if bound is not None:
                bound.close()
            namespace.close()
            if born:
                self._pins.delete(network.overlay)
                if self.guard is not None:  # the VNI may be somebody else's, whom we would keep out
                    self.guard.uncover(network.overlay)
            raise
        ground.bound = bound
        ground.rows, ground.born = rows.Written(_rows_of(ground.tables)), born
        self._admit(ground, ground.rows.fdb.values())
        return ground

    def _open(
        self, namespace: netns.Namespace, network: Network, endpoints: Iterable[Endpoint], deadline: float
    ) -> Ground:
        ifindex = self._links.ifindex(namespace, shape.VXLAN, deadline=deadline)
        if ifindex is None:
            raise KernelRefused(f"find {shape.VXLAN} of overlay {network.overlay}", errno.ENODEV, "it is gone")
        ground = self._open_ground(namespace, ifindex, (endpoint.port for endpoint in endpoints))
        ground.overlay = network.overlay
        return ground

    def _admit(self, ground: Ground, fdb: Iterable[Fdb]) -> None:
        """Whoever is sent to may answer."""
        if self.guard is not None:
            self.guard.admit(ground.overlay, guarding.behind(fdb))

    def keep_pinned(self, ground: Ground, overlay: OverlayName) -> None:
        """See that the namespace we hold open is the one that is pinned: somebody may have taken the pin away.

        The namespace itself lives on with all its cables as long as we hold it, so it is pinned again, not rebuilt.
        """
        if self._pins.keep(overlay, ground.namespace):
            self._repaired(overlay, "pin", "its namespace")
            log.warning("overlay %s: its namespace was not pinned any more, and is again", overlay)

    def filters_off(self, overlay: OverlayName, namespace: netns.Namespace) -> bool:
        """See that the namespace's bridge hands no frame to the firewall; True where it did. Raises KernelRefused."""
        on = namespace.read_sysctls(BRIDGE_FILTERS, unless="0")
        failed = namespace.sysctls(dict.fromkeys(on, "0"))
        for key, code in failed.items():
            raise KernelRefused(f"overlay {overlay}: setting {key}", code, os.strerror(code))
        if on:
            self._repaired(overlay, "bridge filter", shape.BRIDGE)
            log.warning("overlay %s: its bridge handed frames to the firewall, and does so no more", overlay)
        return bool(on)

    def inspect(self, ground: Ground, network: Network, endpoints: Sequence[Endpoint], deadline: float) -> Finding:
        """Look whether the links are as wanted. Needs no lock: what it finds is looked at again under the lock."""
        seen = self._seen(ground.namespace, network, deadline, ground)
        kept = [endpoint for endpoint in endpoints if endpoint.port in seen]
        steps = shape.diff(shape.wanted(network, kept, self.resolver), seen)
        if not any(isinstance(step, shape.Remove) for step in steps):
            self._leftovers.release("link", network.overlay, (), len(seen))  # nothing of it waits any more
        return Finding(bool(steps) or not ground.is_bound(), len(kept) < len(endpoints))

    def mend(self, ground: Ground, network: Network, endpoints: Sequence[Endpoint], deadline: float) -> Ground:
        """Make the links as wanted. Where a device had to be made anew, or was, another ground is opened and filled."""
        if self.guard is not None:
            self.guard.cover(network, strict=False)
        seen = self._seen(ground.namespace, network, deadline, ground)
        kept = [endpoint for endpoint in endpoints if endpoint.port in seen]
        self._fit(ground.namespace, network, kept, seen, ground.leaving, deadline, False)
        if ground.is_bound():
            return ground
        namespace = ground.namespace.dup()
        try:
            new = self._open(namespace, network, kept, deadline)
        except BaseException:
            namespace.close()
            raise
        new.leaving, new.coming = ground.leaving, ground.coming
        new.bound, ground.bound = ground.bound, None
        new.rows = ground.rows
        self._apply(new, rows.diff(new.rows.all(), _rows_of(new.tables)))
        self._repaired(network.overlay, "device made anew", f"{shape.BRIDGE} or {shape.VXLAN}")
        log.warning("overlay %s: bridge or VXLAN device was another; its rows are written anew", network.overlay)
        ground.close()
        return new

    def _seen(
        self, namespace: netns.Namespace, network: Network, deadline: float, ground: Ground | None = None
    ) -> dict[str, shape.Thing | None]:
        """The links by name; None for what is not in order. The way to the outside is looked after by `egress`."""
        memory = ground.memory if ground is not None else None
        links = self._links.observe(namespace, deadline=deadline, memory=memory)
        apart = {NEAR} if network.egress is not None else set()
        return {link.name: None if link.faults else link.value for link in links if link.name not in apart}

    def _fit(
        self,
        namespace: netns.Namespace,
        network: Network,
        kept: Sequence[Endpoint],
        seen: Mapping[str, shape.Thing | None],
        leaving: Collection[str],
        deadline: float,
        born: bool,
    ) -> None:
        """Take the steps from what is seen to what is wanted, each counted unless the namespace is newborn."""
        steps = shape.diff(shape.wanted(network, kept, self.resolver), seen)
        surplus = {step.name for step in steps if isinstance(step, shape.Remove)}
        cables = len(seen.keys() - {shape.BRIDGE, shape.VXLAN})
        allowed = self._leftovers.release("link", network.overlay, surplus.difference(leaving), cables)
        for step in steps:
            if isinstance(step, shape.Remove) and step.name in leaving:
                self._links.remove(namespace, step.name, deadline=deadline, wait=False)  # it may have failed
            elif isinstance(step, shape.Ensure) or step.name in allowed:
                self._step(namespace, network, step, deadline)
                if not born:
                    reason = _reason(step, seen)
                    self._repaired(network.overlay, reason, _name(step))
                    log.warning("overlay %s: %s was put right (%s)", network.overlay, _name(step), reason)

    def sweep(
        self, asked: Collection[str], doomed: Collection[str], left: Collection[str], deadline: float
    ) -> set[str]:
        """Take away pinned namespaces that nobody asks for; returns their names.

        `doomed` ones go, for Docker said so to this run of ours. Overlays noted as `left` go too, unless containers use
        them: the note may come from a journal that has forgotten more than it should. The others go as far as the brake
        lets. What is no overlay's name is not ours to judge.
        """
        pinned = {name for name in self._pins.names() if _is_overlay(name)}
        nobodys = pinned.difference(asked)
        in_use = {name for name in nobodys.difference(doomed) if self._is_in_use(name, deadline)}
        caused = nobodys.intersection(doomed) | nobodys.intersection(left) - in_use
        gone = caused | self._leftovers.release("namespace", "", nobodys - caused, len(pinned), in_use)
        for name in gone:
            self.nothing(None, OverlayName(name), deadline)
            self._repaired(name, "surplus namespace", "its namespace")
            log.warning("the namespace %s was no network's, and is removed", name)
        return gone

    def _is_in_use(self, name: str, deadline: float) -> bool:
        """Do cables lead from this namespace to anywhere but the host's, which is: into containers?"""
        if not self._pins.is_there(name):
            return False
        with self._pins.create(name) as namespace:
            links = self._links.observe(namespace, deadline=deadline)
            cables = {link.name for link in links if isinstance(link.value, Veth) and link.value.link is not None}
            return bool(cables and cables - self._links.far_ends(namespace, deadline=deadline).keys())

    def unclaimed(self) -> set[str]:
        """Container's ends that lie in the host's namespace, by name: nobody has taken them yet, or any more."""
        return {name for name in self._links.names() if _LINK.fullmatch(name)}

    def drop_loose(self, names: Collection[str], of: int, deadline: float) -> None:
        """Remove cables both ends of which lie in the host's namespace, of these; as far as the brake lets."""
        loose = self._links.loose_ends("mo", deadline=deadline).intersection(names) if names else set()
        for name in self._leftovers.release("link", "", loose, of):
            self._links.remove_here(name, deadline=deadline)
            self._repaired("", "surplus link", name)
            log.warning("%s was nobody's cable, and is removed", name)

    def _step(
        self, namespace: netns.Namespace, network: Network, step: shape.Ensure | shape.Remove, deadline: float
    ) -> None:
        log.debug("overlay %s: %s", network.overlay, step)
        if isinstance(step, shape.Remove):
            self._links.remove(namespace, step.name, deadline=deadline)
            return
        try:
            for unset in self._links.ensure(namespace, step.thing, deadline=deadline):
                log.warning("overlay %s: %s", network.overlay, unset)
        except KernelRefused as error:
            if error.code not in (errno.EEXIST, errno.EADDRINUSE) or isinstance(step.thing, Veth):
                raise
            raise self._taken(network, deadline) from error

    def _taken(self, network: Network, deadline: float) -> Clash:
        vni, port = network.definition.vni, network.definition.port
        holder = self._links.holder_of(vni, port, search=(self._pins.folder, *FOREIGN_PINS), deadline=deadline)
        return Clash(
            f"VNI {vni} on UDP port {port} is taken on this host by {holder or 'somebody who cannot be seen'}:"
            " remove that, or create the overlay with another -o vni= or -o port="
        )

    def peers(
        self,
        ground: Ground,
        want: rows.Rows,
        complete: bool,
        local: Collection[Record],
        touched: Touched | None = None,
    ) -> None:
        """Bring the VXLAN device's tables from what we wrote to what is wanted; `touched`: `want` is about these alone.

        Nothing is taken away before `want` is known to be complete, but for the rows of what is local by now.
        """
        seen = ground.rows.all() if touched is None else ground.rows.about(touched.addresses, touched.macs)
        want = _intended(lambda: seen, want, complete, local)
        steps = rows.diff(want, seen)
        if steps:
            self._apply(ground, steps)
            ground.rows = rows.Written(want) if touched is None else ground.rows.after(steps)

    def refill(self, ground: Ground, more: rows.Rows) -> None:
        """Write rows that the kernel just missed, whatever we believe is there."""
        steps = rows.diff(more, rows.Rows())
        self._apply(ground, steps)
        ground.rows = ground.rows.after(steps)

    def has_strayed(self, ground: Ground, want: rows.Rows, complete: bool, local: Collection[Record]) -> bool:
        """Are the tables not as wanted? Needs no lock: what it finds is looked at again under the lock."""
        want = _intended(ground.rows.all, want, complete, local)
        return bool(_repairs(_rows_of(ground.tables), want, complete, local))

    def compare(
        self, ground: Ground, network: Network, want: rows.Rows, complete: bool, local: Collection[Record]
    ) -> int:
        """Bring the tables from what is really there to what is wanted; returns how many rows were put right.

        Nothing is taken away before `want` is known to be complete, but for the rows of what is local, whoever wrote
        them; till then what we wrote is wanted as well. Containers that asked for an address while its row was wrong
        were told that, and would believe it for a minute.
        """
        there, want = _rows_of(ground.tables), _intended(ground.rows.all, want, complete, local)
        steps = _repairs(there, want, complete, local)
        for reason, kind in (("missing row", rows.Set), ("surplus row", rows.Unset)):
            found = [str(step.row) for step in steps if isinstance(step, kind)]
            if found:
                self._repaired(network.overlay, reason, *found)
        self._apply(ground, steps)
        ground.rows = rows.Written(want)
        wrong, right = ({neigh.address: neigh.mac for neigh in table.neigh} for table in (there, want))
        for neigh in rows.moved(wrong, right):
            self.announce(ground, neigh.address, neigh.mac, "repaired")
        return len(steps)

    def _apply(self, ground: Ground, steps: Sequence[rows.Set | rows.Unset]) -> None:
        """In the order given: all writes, then all removals, each in one batch."""
        written, removed = rows.parted(steps)
        self.on_write(ground, written, False)
        self.on_write(ground, removed, True)
        self._admit(ground, (row for row in written if type(row) is Fdb))
        refused = [*ground.tables.set(written), *ground.tables.unset(removed)]
        for row, error in refused:
            self._tally.add("row_failures", type(row).__name__.lower())
            log.error("row %s: %s", row, error)

    def announce(self, ground: Ground, address: Address, mac: Mac, reason: str) -> None:
        """Tell the containers of this host whose MAC an address has: a proxying VXLAN device lets no ARP through."""
        try:
            ground.announcer.announce(address, mac)
        except KernelRefused as error:  # the bridge is gone or down: the next round puts it right
            log.warning("%s", error)
            reason = "failed"
        self._tally.add("announcements", reason)

    def nothing(self, ground: Ground | None, overlay: OverlayName, deadline: float) -> None:
        """Take the whole overlay namespace away, with all that is in it.

        The VXLAN device goes first and by itself: a namespace ends in the background, and until then VNI and port would
        be taken by somebody whom nobody can see.
        """
        namespace = ground.namespace if ground is not None else None
        if namespace is None and self._pins.is_there(overlay):
            namespace = self._pins.create(overlay)
        if namespace is not None:
            try:
                self._links.remove(namespace, shape.VXLAN, deadline=deadline)
            except MyoverlayError as error:
                log.warning("overlay %s: %s", overlay, error)
            (ground or namespace).close()
        self._pins.delete(overlay)
        if self.guard is not None:
            self.guard.uncover(overlay)
        if self.binding is not None:
            self.binding.forget(overlay)
        if self.egress is not None:
            self.egress.forget(overlay)

    def close(self) -> None:
        """Let go of the tables of the whole host, which stay."""
        for one in (self.guard, self.egress):
            if one is not None:
                one.close()


def _intended(seen: Callable[[], rows.Rows], want: rows.Rows, complete: bool, local: Collection[Record]) -> rows.Rows:
    return want if complete else rows.merged(rows.apart(seen(), local), want)


def _repairs(
    there: rows.Rows, want: rows.Rows, complete: bool, local: Collection[Record]
) -> list[rows.Set | rows.Unset]:
    return rows.diff(want if complete else rows.apart(rows.merged(there, want), local), there)


def _is_overlay(name: str) -> bool:
    try:
        OverlayName(name)
    except ValueError:
        return False
    return True


def _name(step: shape.Ensure | shape.Remove) -> str:
    return step.name if isinstance(step, shape.Remove) else shape.name_of(step.thing)


def _reason(step: shape.Ensure | shape.Remove, seen: Mapping[str, shape.Thing | None]) -> str:
    if isinstance(step, shape.Remove):
        return "surplus link"
    return "wrong link" if shape.name_of(step.thing) in seen else "missing link"


def _rows_of(tables: Tables) -> rows.Rows:
    neigh, fdb = tables.dump()
    return rows.Rows(frozenset(neigh), frozenset(fdb))
