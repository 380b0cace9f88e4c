"""The neighbour table's limits as the kernel tells them by netlink."""

from __future__ import annotations

import struct

import pytest

from myoverlay.errors import KernelRefused
from myoverlay.kernel.neightable import NeighbourTable, decode
from myoverlay.kernel.rtnetlink import attribute

HEAD = struct.pack("=BBH", 2, 0, 0)
CONFIG = struct.pack("=HHIIIIIII", 4, 336, 212, 0, 0, 0, 16383, 0, 0)
COUNTS = struct.pack("=10QQ", *range(10), 12)


def told(name: bytes = b"arp_cache\0", counts: bytes = COUNTS, limits: tuple[int, ...] = (128, 512, 1024)) -> bytes:
    parts = [attribute(kind, struct.pack("=I", limit)) for kind, limit in zip((2, 3, 4), limits, strict=False)]
    return HEAD + attribute(1, name) + b"".join(parts) + attribute(5, CONFIG) + attribute(7, counts)


#: What is said of one interface: parameters, and neither limits nor counts.
PARAMETERS = HEAD + attribute(1, b"arp_cache\0") + attribute(6, b"\0" * 8)


def test_the_table_of_ipv4_is_found_among_others() -> None:
    """Not that of IPv6, nor an interface's parameters; of a kernel that counts no full tables there were none."""
    others = [told(b"ndisc_cache\0", limits=(1, 2, 3)), PARAMETERS]
    assert decode([*others, told()]) == NeighbourTable((128, 512, 1024), 212, 12)
    assert decode([told(counts=COUNTS[:80])]) == NeighbourTable((128, 512, 1024), 212, 0)


@pytest.mark.parametrize("answers", [[], [b"\2"], [PARAMETERS], [told(limits=(1, 2))], [told(b"ndisc_cache\0")]])
def test_what_tells_of_no_table_is_no_table(answers: list[bytes]) -> None:
    """No zeros are made up: it is said that nothing was told."""
    with pytest.raises(KernelRefused, match="no table arp_cache"):
        decode(answers)
