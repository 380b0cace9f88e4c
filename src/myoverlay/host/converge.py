"""The only writer to the kernel: makes an overlay namespace hold what the plan says, and counts each repair.

Every cause ends here: a call from Docker, a change in the store, a miss, a restart. The caller holds the lock of the
overlay.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from myoverlay.errors import Clash, KernelRefused, MyoverlayError
from myoverlay.host.ground import Ground
from myoverlay.kernel import netns
from myoverlay.kernel.links import Links
from myoverlay.kernel.neigh import Tables
from myoverlay.kernel.pins import Pins
from myoverlay.plan import rows, shape
from myoverlay.tally import Tally
from myoverlay.values import Address, Endpoint, Mac, Network, OverlayName, Veth

log = logging.getLogger(__name__)

#: Where others pin namespaces: looked through for the holder of a VNI.
FOREIGN_PINS = (Path("/run/netns"), Path("/run/docker/netns"))


class Converger:
    """Plans, compares and applies, for one overlay at a time."""

    def __init__(
        self,
        links: Links,
        pins: Pins,
        tally: Tally,
        open_ground: Callable[[netns.Namespace, int, Iterable[str]], Ground] = Ground,
    ) -> None:
        self._links = links
        self._pins = pins
        self._tally = tally
        self._open_ground = open_ground

    def overlay(self, network: Network, endpoints: Sequence[Endpoint], deadline: float) -> Ground:
        """Build the overlay namespace, or adopt the one that is there; surplus links go.

        Ports of endpoints whose cable is gone are not made anew: their container is gone too.
        """
        born = not self._pins.is_there(network.overlay)
        namespace = self._pins.create(network.overlay)
        try:
            links = self._links.observe(namespace, deadline=deadline)
            seen = {link.name: None if link.faults else link.value for link in links}
            kept = [endpoint for endpoint in endpoints if endpoint.port in seen]
            for step in shape.diff(shape.wanted(network, kept), seen):
                self._step(namespace, network, step, deadline)
                if not born:
                    self._tally.add("repairs", str(step).split(maxsplit=1)[0])
            ifindex = self._links.ifindex(namespace, shape.VXLAN, deadline=deadline)
            if ifindex is None:
                raise KernelRefused(f"find {shape.VXLAN} of overlay {network.overlay}", errno.ENODEV, "it is gone")
            ground = self._open_ground(namespace, ifindex, (endpoint.port for endpoint in kept))
        except BaseException:
            namespace.close()
            if born:
                self._pins.delete(network.overlay)
            raise
        ground.rows = _rows_of(ground.tables)
        return ground

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

    def endpoint(self, ground: Ground, network: Network, endpoint: Endpoint, deadline: float) -> None:
        """Lay the endpoint's cable, if it is not there."""
        if endpoint.port in ground.ports:
            return
        try:
            self._links.ensure(ground.namespace, shape.veth(network, endpoint), deadline=deadline)
        except BaseException:
            # Half of it may be there, or be made after its deadline: this comes behind it in the queue.
            self._links.remove(ground.namespace, endpoint.port, deadline=deadline, wait=False)
            raise
        ground.ports.add(endpoint.port)

    def look(self, ground: Ground) -> None:
        """See which cables are still there: a container's namespace that dies takes its cable along."""
        ground.ports &= ground.link_names()

    def without(self, ground: Ground, endpoint: Endpoint, deadline: float) -> None:
        """Take the endpoint's cable away, by its end in our namespace; Docker does not wait for it."""
        if endpoint.port in ground.ports:
            ground.ports.discard(endpoint.port)
            self._links.remove(ground.namespace, endpoint.port, deadline=deadline, wait=False)

    def peers(self, ground: Ground, want: rows.Rows, complete: bool) -> None:
        """Bring the VXLAN device's tables from what we wrote to what is wanted.

        Nothing is taken away before `want` is known to be complete.
        """
        if not complete:
            want = rows.merged(ground.rows, want)
        steps = rows.diff(want, ground.rows)
        if steps:
            self._apply(ground, steps)
            ground.rows = want

    def refill(self, ground: Ground, more: rows.Rows) -> None:
        """Write rows that the kernel just missed, whatever we believe is there."""
        self._apply(ground, rows.diff(more, rows.Rows()))
        ground.rows = rows.merged(ground.rows, more)

    def compare(self, ground: Ground, want: rows.Rows) -> int:
        """Bring the tables from what is really there to what is wanted; returns how many rows were put right."""
        steps = rows.diff(want, _rows_of(ground.tables))
        for step in steps:
            self._tally.add("repairs", f"{'missing' if isinstance(step, rows.Set) else 'surplus'} row")
        self._apply(ground, steps)
        ground.rows = want
        return len(steps)

    def _apply(self, ground: Ground, steps: Sequence[rows.Set | rows.Unset]) -> None:
        """In the order given: all writes, then all removals, each in one batch."""
        refused = ground.tables.set([step.row for step in steps if isinstance(step, rows.Set)])
        refused += ground.tables.unset([step.row for step in steps if isinstance(step, rows.Unset)])
        for row, error in refused:
            self._tally.add("row_failures", type(row).__name__.lower())
            log.error("row %s: %s", row, error)

    def announce(self, ground: Ground, address: Address, mac: Mac, reason: str) -> None:
        """Tell the containers of this host whose MAC an address has: a proxying VXLAN device lets no ARP through."""
        ground.announcer.announce(address, mac)
        self._tally.add("announcements", reason)

    def nothing(self, ground: Ground | None, overlay: OverlayName, deadline: float) -> None:
        """Take the whole overlay namespace away, with all that is in it.

        The VXLAN device goes first and by itself: a namespace ends in the background, and until then VNI and port would
        be taken by somebody whom nobody can see.
        """
        if ground is not None:
            try:
                self._links.remove(ground.namespace, shape.VXLAN, deadline=deadline)
            except MyoverlayError as error:
                log.warning("overlay %s: %s", overlay, error)
            ground.close()
        self._pins.delete(overlay)


def _rows_of(tables: Tables) -> rows.Rows:
    neigh, fdb = tables.dump()
    return rows.Rows(frozenset(neigh), frozenset(fdb))
