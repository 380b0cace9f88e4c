"""The own ways of this host's overlays to the outside: one cable each, whose gateway Docker is told for each container.

Where one cannot be made, Docker adds its own bridge to each new container, as it does for networks without a gateway;
why is said in the log and by `doctor`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from myoverlay.egress import Crossing, Leg
from myoverlay.errors import KernelRefused
from myoverlay.kernel.netns import Namespace
from myoverlay.plan import egress as plan
from myoverlay.tally import Tally
from myoverlay.values import Address, Network

log = logging.getLogger(__name__)


class Cables(Protocol):
    """What is needed of `kernel.egress.Cables`."""

    def bridge(self, name: str) -> tuple[Address, int] | None: ...
    def faults(self, ns: Namespace, leg: Leg) -> tuple[str, ...]: ...
    def make(self, ns: Namespace, leg: Leg) -> None: ...
    def remove(self, leg: Leg) -> None: ...


class Inner(Protocol):
    """What is needed of `kernel.egress.InnerTable`."""

    def lay(self, value: bool) -> None: ...
    def is_untouched(self) -> bool: ...
    def look(self) -> bool | None: ...
    def close(self) -> None: ...


class Outer(Protocol):
    """What is needed of `kernel.egress.CrossingTable`."""

    def held(self) -> Crossing: ...
    def lay(self, value: Crossing) -> None: ...
    def is_untouched(self) -> bool: ...
    def look(self) -> Crossing | None: ...
    def remove(self) -> None: ...
    def close(self) -> None: ...


class Egress:
    """All ways to the outside of one host. Called under an overlay's lock; `_lock`, taken last, guards all below."""

    def __init__(
        self,
        bridge: str,
        cables: Cables,
        outer: Outer,
        make_inner: Callable[[Callable[[], Namespace]], Inner],
        tally: Tally,
    ) -> None:
        """`bridge`: the host's, that the cables lead to."""
        self.bridge = bridge
        self._cables, self._outer, self._make_inner, self._tally = cables, outer, make_inner, tally
        #: Called with what was put right: overlay, reason, in words.
        self.on_repair: Callable[[str, str, Sequence[str]], None] = lambda *_: None
        self._lock = threading.Lock()
        self._ways: dict[str, _Way] = {}
        self._laid = Crossing()
        #: What a former run led out goes on while this one has not led it yet; None: not looked yet.
        self._inherited: frozenset[Address] | None = None
        self._trouble: dict[str, str] = {}

    @property
    def trouble(self) -> Mapping[str, str]:
        """Why an overlay has no way of its own though it should, in one sentence, by its name."""
        with self._lock:
            return dict(self._trouble)

    def gateway(self, network: Network) -> Address | None:
        """The gateway of containers that join now; None where Docker is to give them its own bridge."""
        with self._lock:
            leads = network.overlay in self._ways and network.overlay not in self._trouble
        return network.definition.gateway if leads else None

    def lead(self, ns: Namespace, network: Network) -> None:
        """See that the overlay's way is there, if it is to have one."""
        if network.egress is None:
            return
        with self._lock:
            try:
                faults = self._stand(ns, network.overlay, network.egress)
            except KernelRefused as error:
                self._fails(network.overlay, str(error))
                return
            if self._trouble.pop(network.overlay, None) is not None:
                log.warning("overlay %s leads to the outside by itself again", network.overlay)
        if faults:
            self._tally.add("repairs", "egress", len(faults))
            log.warning("overlay %s: its way to the outside was put right: %s", network.overlay, ", ".join(faults))
            self.on_repair(network.overlay, "egress", faults)

    def forget(self, overlay: str) -> None:
        """The overlay is taken off this host: so is its cable."""
        with self._lock:
            way = self._ways.pop(overlay, None)
            self._trouble.pop(overlay, None)
            if way is None:
                return
            self._inherited = (self._inherited or frozenset()) - {way.leg.address}
            try:
                self._cables.remove(way.leg)
                self._cross()
            except KernelRefused as error:
                log.warning("of the way to the outside of overlay %s something stays: %s", overlay, error)

    def close(self) -> None:
        """Let go of the host's table. Ways and tables stay."""
        self._outer.close()

    # -- with the lock held ------------------------------------------------------------------------------------------

    def _stand(self, ns: Namespace, overlay: str, address: Address) -> Sequence[str]:
        """The host's rules, then the namespace's, then the cable: nothing ever passes without them.

        Returns what was wrong, in words, of what stood before. Raises KernelRefused.
        """
        found = self._cables.bridge(self.bridge)
        if found is None:
            raise KernelRefused(f"finding bridge {self.bridge}", 0, "this host has none that is up and has an address")
        leg, way = plan.leg(address, self.bridge, *found), self._ways.get(overlay)
        is_new = way is None
        if way is None:
            way = self._ways[overlay] = _Way(leg, ns, self._make_inner)
        way.leg, way.namespace = leg, ns
        wrong = ["the host's rules"] if self._cross() else []
        wrong += ["its rules"] if way.bind() else []
        faults = self._cables.faults(ns, leg)
        if faults:
            self._cables.make(ns, leg)
        return () if is_new else (*wrong, *faults)

    def _cross(self) -> bool:
        """The host's rules, for all ways there are; True where somebody had changed them."""
        if self._inherited is None:
            self._inherited = self._outer.held().addresses
        legs = [way.leg for way in self._ways.values()]
        addresses = self._inherited.union(leg.address for leg in legs)
        want = Crossing(addresses, frozenset(leg.bridge for leg in legs))
        spoilt = bool(legs) and want == self._laid and not self._outer.is_untouched() and self._outer.look() != want
        if not legs:
            self._outer.remove()
        elif spoilt or want != self._laid:
            self._outer.lay(want)
        self._laid = want
        return spoilt

    def _fails(self, overlay: str, why: str) -> None:
        if self._trouble.get(overlay) != why:
            log.error("overlay %s: new containers get docker_gwbridge for the outside: %s", overlay, why)
            self._trouble[overlay] = why


class _Way:
    """One overlay's. `namespace` is the one that it was led from last, open while the overlay's lock is held."""

    def __init__(self, leg: Leg, namespace: Namespace, make_inner: Callable[[Callable[[], Namespace]], Inner]) -> None:
        self.leg, self.namespace = leg, namespace
        self._inner, self._is_laid = make_inner(lambda: self.namespace), False

    def bind(self) -> bool:
        """The namespace's rules; True where somebody had changed them."""
        try:
            if self._is_laid and (self._inner.is_untouched() or self._inner.look()):
                return False
            self._inner.lay(True)
        finally:
            self._inner.close()  # a socket there would keep the namespace alive
        before, self._is_laid = self._is_laid, True
        return before
