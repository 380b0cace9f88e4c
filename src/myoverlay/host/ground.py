"""The kernel's side of one overlay, open for work: what `converge` writes through and `misses` listens on."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from myoverlay.host.binding import Table
from myoverlay.kernel import netns
from myoverlay.kernel.frames import Announcer
from myoverlay.kernel.links import Asked
from myoverlay.kernel.linkwork import Memory
from myoverlay.kernel.neigh import MissSocket, Tables
from myoverlay.plan import rows, shape


class Ground:
    """The kernel's side of one overlay, open: its namespace, the VXLAN device's tables, and what we wrote there.

    It is bound to one VXLAN device and one bridge: where either was made anew, another ground is opened.
    """

    def __init__(self, namespace: netns.Namespace, ifindex: int, ports: Iterable[str]) -> None:
        self.namespace = namespace
        #: Whose it is.
        self.overlay = ""
        #: What binds its containers to their addresses, where they are bound.
        self.bound: Table | None = None
        self.ifindex = ifindex
        self.ports = set(ports)
        #: Cables that are being laid, by their ports, and that nobody has waited for yet.
        self.coming: dict[str, Asked[tuple[str, ...]]] = {}
        #: Ports that are being taken away because Docker said so: their removal has a cause, and may take a while.
        self.leaving: set[str] = set()
        self.rows = rows.Written()
        #: Was the namespace made for it? Then nothing of before a power loss is there.
        self.born = False
        #: What the links looked like when they were last observed.
        self.memory = Memory()
        self.tables = Tables(namespace, ifindex)
        self.announcer = Announcer(namespace, shape.BRIDGE)
        self.misses = MissSocket(namespace)
        self._bridge = self._indexes()[1]

    def link_names(self) -> set[str]:
        return {name for _, name in self.namespace.call(socket.if_nameindex)}

    def is_bound(self) -> bool:
        """Are bridge and VXLAN device still those that this was opened on?"""
        return self._indexes() == [self.ifindex, self._bridge]

    def _indexes(self) -> list[int]:
        """Those of the two devices, 0 for one that is not there."""
        return self.namespace.call(lambda: [_index(shape.VXLAN), _index(shape.BRIDGE)])

    def close(self) -> None:
        if self.bound is not None:
            self.bound.close()
        for part in (self.misses, self.announcer, self.tables, self.namespace):
            part.close()


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0
