"""The kernel's side of one overlay, open for work: what `converge` writes through and `misses` listens on."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from myoverlay.kernel import netns
from myoverlay.kernel.frames import Announcer
from myoverlay.kernel.linkwork import Memory
from myoverlay.kernel.neigh import MissSocket, Tables
from myoverlay.plan import rows, shape


class Ground:
    """The kernel's side of one overlay, open: its namespace, the VXLAN device's tables, and what we wrote there.

    It is bound to one VXLAN device and one bridge: where either was made anew, another ground is opened.
    """

    def __init__(self, namespace: netns.Namespace, ifindex: int, ports: Iterable[str]) -> None:
        self.namespace = namespace
        self.ifindex = ifindex
        self.ports = set(ports)
        #: Ports that are being taken away because Docker said so: their removal has a cause, and may take a while.
        self.leaving: set[str] = set()
        self.rows = rows.Rows()
        #: What the links looked like when they were last observed.
        self.memory = Memory()
        self.tables = Tables(namespace, ifindex)
        self.announcer = Announcer(namespace, shape.BRIDGE)
        self.misses = MissSocket(namespace)
        #: The bridge's index: told by the next look where it was not known at birth.
        self.bridge = self.indexes().get(shape.BRIDGE)

    def indexes(self) -> dict[str, int]:
        """All links of the namespace, each with its index."""
        return {name: index for index, name in self.namespace.call(socket.if_nameindex)}

    def close(self) -> None:
        for part in (self.misses, self.announcer, self.tables, self.namespace):
            part.close()
