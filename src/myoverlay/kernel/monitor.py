"""Hears what the kernel tells everybody about links, routes and neighbours, as `ip monitor` does. Bytes only."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from myoverlay.kernel.listener import Listener
from myoverlay.kernel.neigh import RTNLGRP_NEIGH
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.rtnetlink import SOL_NETLINK

#: linux/rtnetlink.h. Routes have a group per family.
GROUPS = {"link": (1,), "neigh": (RTNLGRP_NEIGH,), "route": (7, 11)}
NETLINK_ADD_MEMBERSHIP = 1


class Monitor(Listener):
    """A member of some groups in one namespace. For one thread, which selects on `fileno`."""

    def __init__(self, ns: Namespace, groups: Iterable[str]) -> None:
        self._groups = [number for group in groups for number in GROUPS[group]]
        super().__init__(ns)

    def _join(self, sock: socket.socket) -> None:
        sock.bind((0, 0))
        for number in self._groups:
            sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, number)

    def read(self) -> list[bytes]:
        """What has come, a piece per notification. Raises Overrun as `pieces` does."""
        return self.pieces()
