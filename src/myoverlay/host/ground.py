"""The kernel's side of one overlay, open for work: what `converge` writes through and `misses` listens on."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from myoverlay.kernel import netns
from myoverlay.kernel.frames import Announcer
from myoverlay.kernel.neigh import MissSocket, Tables
from myoverlay.plan import rows, shape


class Ground:
    """The kernel's side of one overlay, open: its namespace, the VXLAN device's tables, and what we wrote there."""

    def __init__(self, namespace: netns.Namespace, ifindex: int, ports: Iterable[str]) -> None:
        self.namespace = namespace
        self.ifindex = ifindex
        self.ports = set(ports)
        self.rows = rows.Rows()
        self.tables = Tables(namespace, ifindex)
        self.announcer = Announcer(namespace, shape.BRIDGE)
        self.misses = MissSocket(namespace)

    def link_names(self) -> set[str]:
        return {name for _, name in self.namespace.call(socket.if_nameindex)}

    def close(self) -> None:
        for part in (self.misses, self.announcer, self.tables, self.namespace):
            part.close()
