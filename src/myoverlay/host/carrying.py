"""Whether this host can carry an overlay: is its VXLAN device there, or could one be made; and who is in the way."""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

from myoverlay.host.local import LocalOverlay
from myoverlay.host.overlays import Overlays
from myoverlay.kernel.links import Links
from myoverlay.kernel.probe import PROBE_VNI
from myoverlay.networks import Cannot, Carry, plain
from myoverlay.values import Address, Vxlan

#: A VNI that no overlay is given by itself, to try a port with.
_FREE_VNI = PROBE_VNI - 1


class Trying(Protocol):
    """Are VNI and port free? `kernel.trial.Trial`."""

    def taken(self, vni: int, port: int, local: Address, deadline: float) -> tuple[bool, str] | None: ...


class Standing(NamedTuple):
    """Is a VXLAN device there? Else `holder` has its VNI and port, or, where `is_port`, the port alone; or nobody."""

    there: bool
    holder: str = ""
    is_port: bool = False


class Carrying:
    """Looks at this host's kernel; what it tries it takes away again. From any thread."""

    def __init__(self, overlays: Overlays, links: Links, trial: Trying) -> None:
        self._overlays = overlays
        self._links = links
        self._trial = trial

    def device(self, local: LocalOverlay, deadline: float) -> Standing:
        """That of an overlay of this host. Raises KernelRefused or Late."""
        network, links = local.network, self._links
        wanted = (network.definition.vni, network.definition.port)
        there = local.inside(lambda ns: links.observe(ns, deadline=deadline), deadline) or ()
        ours = [link for link in there if isinstance(link.value, Vxlan) and (link.value.vni, link.value.port) == wanted]
        if ours and all("down" in link.faults for link in ours):
            # Up, it would have the port: somebody else does, where none of ours but this one has the VNI.
            taken = self._trial.taken(_FREE_VNI, wanted[1], network.vtep, deadline)
            if taken is not None:
                return Standing(False, taken[1], taken[0])
        return Standing(True) if ours else self.room(*wanted, network.vtep, deadline)

    def room(self, vni: int, port: int, vtep: Address, deadline: float) -> Standing:
        """That of a device which is not there: who is in its way, by the kernel's own answer. Raises KernelRefused."""
        is_port, holder = self._trial.taken(vni, port, vtep, deadline) or (False, "")
        return Standing(False, holder, is_port)

    def cannot(self, asked: Carry, vtep: Address, deadline: float) -> Cannot | None:
        """Who is in the way of an overlay that another host asks about; None where nobody is. Raises KernelRefused."""
        local = self._overlays.named(asked.overlay)
        member = local is not None and local.network.definition.vni == asked.vni
        if local is not None and member:
            found = self.device(local, deadline)
        else:
            found = self.room(asked.vni, asked.port, vtep, deadline)
        if found.there or not found.holder:
            return None
        return Cannot(overlay=asked.overlay, holder=plain(found.holder), is_port=found.is_port, member=member)

    def all_of(self, asked: tuple[Carry, ...], vtep: Address, deadline: float) -> tuple[tuple[Cannot, ...], int]:
        """Of those that could be looked at until the deadline, and how many that were. Raises KernelRefused."""
        found: list[Cannot] = []
        for looked, one in enumerate(asked):
            if time.monotonic() > deadline:
                return tuple(found), looked
            found += [said] if (said := self.cannot(one, vtep, deadline)) is not None else []
        return tuple(found), len(asked)
