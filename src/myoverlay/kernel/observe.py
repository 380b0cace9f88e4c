"""What is in a namespace, read by struct and nothing changed: links, addresses, and which MACs a bridge has learned."""

from __future__ import annotations

import errno
import socket
import struct

from myoverlay.errors import KernelRefused
from myoverlay.kernel import linkforms, underlay
from myoverlay.kernel.linkforms import IFINFO, Seen
from myoverlay.kernel.neigh import NDA_LLADDR, NDA_MASTER, NDM, RTM_GETNEIGH
from myoverlay.kernel.rtnetlink import Request, Wire, attribute, attributes
from myoverlay.values import Address, Mac

_RTM_GETLINK = 18


def links(wire: Wire) -> dict[str, Seen]:
    """All links by name. Raises KernelRefused."""
    bodies = wire.dump(_RTM_GETLINK, IFINFO.pack(0, 0, 0, 0, 0))
    return {link.name: link for body in bodies if (link := linkforms.decode_link(body)) is not None}


def link(wire: Wire, index: int) -> Seen | None:
    """The link of that index, or None where there is none. Raises KernelRefused."""
    request = Request(_RTM_GETLINK, 0, IFINFO.pack(0, 0, index, 0, 0))
    try:
        return linkforms.decode_link(wire.one(request, f"looking for interface {index}").body)
    except KernelRefused as said:
        if said.code == errno.ENODEV:
            return None
        raise


def addresses(wire: Wire, index: int | None = None) -> set[Address]:
    """The addresses of one link, or of all. Raises KernelRefused."""
    return {place.address for place in underlay.places(wire) if index is None or place.index == index}


def bridged_macs(wire: Wire, bridge: int, tunnel: int) -> set[Mac]:
    """The MACs that a bridge knows on its own side: learned, static or its ports'; not those behind the tunnel."""
    which = attribute(NDA_MASTER, struct.pack("=I", bridge))
    macs = set()
    for body in wire.dump(RTM_GETNEIGH, NDM.pack(socket.AF_BRIDGE, 0, 0, 0, 0) + which):
        if len(body) < NDM.size:
            continue
        port = NDM.unpack_from(body)[1]
        raw = attributes(body, NDM.size).get(NDA_LLADDR, b"")
        if port != tunnel and len(raw) == 6 and not raw[0] & 1 and any(raw):
            macs.add(Mac.unpack(raw))
    return macs
