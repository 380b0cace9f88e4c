"""Rows of a dump that are read by where their parts stand: the same value as part by part, or none."""

from __future__ import annotations

import socket
import struct

import pytest

from myoverlay.kernel import neigh
from myoverlay.kernel.rtnetlink import attribute, attributes
from myoverlay.values import Address, Fdb, Mac, Neigh

MAC, VTEP, AGES = Mac("02:42:0a:05:00:63"), Address("192.0.2.7"), attribute(3, bytes(16))
LLADDR, DST = attribute(neigh.NDA_LLADDR, MAC.packed), attribute(neigh.NDA_DST, VTEP.packed)
NETNSID = attribute(10, bytes(4))
HEAD = neigh.NDM.pack(socket.AF_BRIDGE, 5, neigh.NUD_PERMANENT, neigh.NTF_SELF, 0)


@pytest.mark.parametrize("before", [b"", NETNSID])
def test_a_usual_fdb_row_is_read_whole(before: bytes) -> None:
    """With the other namespace's id before it, and without."""
    body = HEAD + before + LLADDR + DST + AGES
    assert neigh._usual_fdb(body) == neigh.decode_row(body, 5) == Fdb(mac=MAC, vtep=VTEP)
    assert neigh._fdb(attributes(body, neigh.NDM.size)) == Fdb(mac=MAC, vtep=VTEP)


@pytest.mark.parametrize(
    "rest",
    [
        LLADDR + DST + attribute(neigh.NDA_PORT, b"\x12\xb6") + AGES,
        LLADDR + DST + attribute(neigh.NDA_VNI, struct.pack("=I", 7)) + AGES,
        LLADDR + DST + attribute(neigh.NDA_IFINDEX, struct.pack("=I", 7)) + AGES,
        attribute(neigh.NDA_LLADDR, b"\x01\x00\x5e\x00\x00\x01") + DST + AGES,
        attribute(neigh.NDA_LLADDR, bytes(6)) + DST + AGES,
        attribute(neigh.NDA_LLADDR, bytes(4)) + attribute(neigh.NDA_DST, bytes(6)) + AGES,
    ],
)
@pytest.mark.parametrize("before", [b"", NETNSID])
def test_what_is_not_usual_is_no_row_of_ours(before: bytes, rest: bytes) -> None:
    """A port, VNI or interface of its own, multicast, zeros, lengths that are another's: None both ways."""
    body = HEAD + before + rest
    assert neigh._usual_fdb(body) is None
    assert neigh.decode_row(body, 5) is None


def test_another_order_is_read_part_by_part() -> None:
    """An older or newer kernel may write them so; nothing is lost but time."""
    body = HEAD + DST + LLADDR + AGES
    assert neigh._usual_fdb(body) is None
    assert neigh.decode_row(body, 5) == Fdb(mac=MAC, vtep=VTEP)
    row = neigh.NDM.pack(socket.AF_INET, 5, neigh.NUD_PERMANENT, 0, 0)
    wanted = Neigh(address=VTEP, mac=MAC)
    assert neigh.decode_row(row + LLADDR + DST + AGES, 5) == neigh.decode_row(row + DST + LLADDR + AGES, 5) == wanted


@pytest.mark.parametrize("cut", range(1, 60))
def test_what_is_cut_off_raises_nothing(cut: int) -> None:
    """Whatever the length."""
    for body in (HEAD + NETNSID + LLADDR + DST + AGES, HEAD + LLADDR + DST + AGES):
        neigh.decode_row(body[:-cut], 5)
