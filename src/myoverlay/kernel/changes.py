"""Hears what becomes of the links and rows of an overlay namespace, whoever does it.

Sources: rtnetlink(7); net/core/neighbour.c, drivers/net/vxlan/vxlan_core.c and net/bridge/br_fdb.c (what is told).
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from myoverlay.kernel import linkforms
from myoverlay.kernel.linkforms import IFINFO, Seen
from myoverlay.kernel.listener import Listener, attach_filter
from myoverlay.kernel.neigh import (
    NDA_LLADDR,
    NDM,
    NTF_SELF,
    RTM_DELNEIGH,
    RTM_GETNEIGH,
    RTM_NEWNEIGH,
    RTNLGRP_NEIGH,
    SeenRow,
    decode_row,
    seen_row,
)
from myoverlay.kernel.rtnetlink import Reply, attributes, replies
from myoverlay.values import Fdb, Neigh

_RTM_NEWLINK, _RTM_DELLINK, _RTNLGRP_LINK = 16, 17, 1


class LinkChange(NamedTuple):
    """A link is new, another, or gone."""

    gone: bool
    link: Seen


class RowChange(NamedTuple):
    """A row of the device's tables is new, another, or gone. `row`: as we write such, None for what we never write."""

    gone: bool
    seen: SeenRow
    row: Neigh | Fdb | None


class PortChange(NamedTuple):
    """A row of a bridge, by which a MAC is at the port of that index."""

    gone: bool
    mac: str
    port: int


Change = LinkChange | RowChange | PortChange


class Changes(Listener):
    """What is told in one namespace. For one thread, which selects on `fileno`."""

    heard = "links and rows"

    def _join(self, sock: socket.socket) -> None:
        # All but the kernel's questions, which others hear (see `neigh`); loads are in network order.
        question = socket.htons(RTM_GETNEIGH)
        attach_filter(sock, ((0x28, 0, 0, 4), (0x15, 0, 1, question), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)))
        sock.bind((0, 1 << RTNLGRP_NEIGH - 1 | 1 << _RTNLGRP_LINK - 1))

    def read(self, device: int) -> list[Change]:
        """What has come, without waiting; of rows those of the device and of bridges. Raises Overrun as `pieces`."""
        told = (decode(reply, device) for raw in self.pieces() for reply in replies(raw))
        return [change for change in told if change is not None]


def decode(reply: Reply, device: int) -> Change | None:
    """One message; None for one that says nothing of links or rows, or is cut off."""
    if reply.kind in (_RTM_NEWLINK, _RTM_DELLINK):
        # A bridge tells of its ports in a family of its own; what becomes of the link is told in the common one.
        if len(reply.body) < IFINFO.size or reply.body[0] != socket.AF_UNSPEC:
            return None
        link = linkforms.decode_link(reply.body)
        return LinkChange(reply.kind == _RTM_DELLINK, link) if link is not None else None
    if reply.kind not in (RTM_NEWNEIGH, RTM_DELNEIGH) or len(reply.body) < NDM.size:
        return None
    family, index, _state, flags, _type = NDM.unpack_from(reply.body)
    gone = reply.kind == RTM_DELNEIGH
    if family == socket.AF_BRIDGE and not flags & NTF_SELF:
        mac = attributes(reply.body, NDM.size).get(NDA_LLADDR, b"")
        return PortChange(gone, mac.hex(":"), index) if len(mac) == 6 else None
    seen = seen_row(reply.body, device)
    return RowChange(gone, seen, decode_row(reply.body, device)) if seen is not None else None
