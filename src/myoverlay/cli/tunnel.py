"""A tunnel that somebody made by hand, open for `myoverlay arpd`: its tables, its misses, and what is on this side."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from myoverlay.errors import Unknown
from myoverlay.kernel import netns, observe
from myoverlay.kernel.frames import Announcer
from myoverlay.kernel.linkforms import Seen
from myoverlay.kernel.neigh import MissSocket, Tables
from myoverlay.kernel.rtnetlink import Wire
from myoverlay.plan import rows
from myoverlay.values import Address, Mac, Peer


class Here(NamedTuple):
    """What is on this host's side of the tunnel."""

    macs: frozenset[Mac]
    addresses: frozenset[Address]
    vteps: frozenset[Address]

    def has(self, peer: Peer) -> bool:
        return peer.vtep in self.vteps or peer.mac in self.macs or peer.address in self.addresses


class Tunnel:
    """The kernel's side: a VXLAN device, its bridge, and the namespace where its packets leave (this process's)."""

    def __init__(self, ns: netns.Namespace, device: Seen, bridge: Seen, vteps: Iterable[Address] = ()) -> None:
        """`vteps` are this host's beside the addresses it has. Raises KernelRefused."""
        self.namespace, self.name, self.ifindex = ns, device.name, device.index
        self._bridge = bridge
        self._vteps = frozenset(vteps)
        with contextlib.ExitStack() as stack:
            home = stack.enter_context(netns.current())
            self._home, self._wire = Wire(home), Wire(ns)
            stack.callback(self._home.close)
            stack.callback(self._wire.close)
            self.tables = stack.enter_context(Tables(ns, device.index))
            self.announcer = stack.enter_context(Announcer(ns, bridge.name))
            self.misses = stack.enter_context(MissSocket(ns))
            self._parts = stack.pop_all()

    def close(self) -> None:
        self._parts.close()

    def here(self) -> Here:
        """Raises KernelRefused."""
        macs = observe.bridged_macs(self._wire, self._bridge.index, self.ifindex)
        own = observe.addresses(self._wire, self._bridge.index)
        vteps = observe.addresses(self._home)
        return Here(frozenset(macs), frozenset(own), self._vteps | vteps)

    def rows(self) -> rows.Rows:
        """The permanent rows that are there, whoever wrote them. Raises KernelRefused."""
        neigh, fdb = self.tables.dump()
        return rows.Rows(frozenset(neigh), frozenset(fdb))

    def check(self) -> None:
        """Raises Unknown where namespace or device are gone or others by now: our sockets would keep them alive."""
        path = self.namespace.path
        if path is not None and not _is(path, self.namespace.inode):
            raise Unknown(f"the namespace {path} was taken away")
        link = observe.link(self._wire, self.ifindex)
        if link is None or link.name != self.name:
            raise Unknown(f"the device {self.name} was taken away")


def _is(path: Path, inode: int) -> bool:
    try:
        return os.stat(path).st_ino == inode
    except OSError:
        return False
