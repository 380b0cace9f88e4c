"""The machine's neighbour table: its limits, and what is used of them. Read by netlink, from any namespace.

It is one table for all namespaces together (net/core/neighbour.c): /proc shows it in the machine's first one alone,
netlink in each. Source: include/uapi/linux/neighbour.h.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

from myoverlay.errors import KernelRefused
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.rtnetlink import Wire, attributes

_RTM_GETNEIGHTBL = 66
#: struct ndtmsg: family, padding.
_HEAD = struct.Struct("=BBH")
_NAME, _THRESHOLDS, _CONFIG, _STATISTICS = 1, (2, 3, 4), 5, 7
#: struct ndt_config: key and entry size, then the entries; struct ndt_stats: table_fulls is the eleventh.
_ENTRIES, _FULLS = struct.Struct("=HHI"), struct.Struct("=80xQ")
_ATTEMPT = "reading the neighbour table's limits"


class NeighbourTable(NamedTuple):
    """`entries` and `fulls` (times the table was full since boot) are of all namespaces together, and `entries` counts
    permanent ones too.
    """

    thresholds: tuple[int, int, int]
    entries: int
    fulls: int


def neighbour_table(ns: Namespace) -> NeighbourTable:
    """The table of IPv4. Raises KernelRefused."""
    with contextlib.closing(Wire(ns)) as wire:
        return decode(wire.dump(_RTM_GETNEIGHTBL, _HEAD.pack(socket.AF_INET, 0, 0)))


def decode(bodies: Iterable[bytes]) -> NeighbourTable:
    """The table `arp_cache` among the answers; those without its limits are of single interfaces. KernelRefused."""
    for body in bodies:
        found = attributes(body, _HEAD.size) if len(body) >= _HEAD.size else {}
        limits = tuple(found.get(kind, b"") for kind in _THRESHOLDS)
        config, counts = found.get(_CONFIG, b""), found.get(_STATISTICS, b"")
        if found.get(_NAME) != b"arp_cache\0" or any(len(one) != 4 for one in limits) or len(config) < _ENTRIES.size:
            continue
        first, second, third = (struct.unpack("=I", one)[0] for one in limits)
        fulls = _FULLS.unpack_from(counts)[0] if len(counts) >= _FULLS.size else 0  # older ones do not count them
        return NeighbourTable((first, second, third), _ENTRIES.unpack_from(config)[2], fulls)
    raise KernelRefused(_ATTEMPT, errno.ENOENT, "the kernel told of no table arp_cache")
