"""Netlink messages taken apart: names, places and texts; whatever the bytes, nothing is raised and nothing invented."""

from __future__ import annotations

import json
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myoverlay.kernel import anatomy
from myoverlay.kernel.anatomy import Message, dissect, walk
from myoverlay.kernel.neigh import new_row
from myoverlay.kernel.rtnetlink import HEADER, attribute
from myoverlay.values import Address, Fdb, Mac, Neigh

MAC = Mac("02:42:c0:a8:00:03")
NDM = struct.Struct("=B3xiHBB")
IFINFO = struct.Struct("=BxHiII")
RTM = struct.Struct("=8BI")


def message(kind: int, body: bytes, flags: int = 0) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, 7, 0) + body


def l3_miss(address: str = "192.168.0.3", index: int = 5) -> bytes:
    return message(30, NDM.pack(socket.AF_INET, index, 0x04, 0, 0) + attribute(1, Address(address).packed))


def test_a_miss_is_named_field_by_field() -> None:
    """An L3 miss: each field of nlmsghdr and ndmsg with its place, size and text, and the one attribute."""
    (seen,) = dissect(l3_miss())
    assert seen.kind == "RTM_GETNEIGH"
    assert [(f.name, f.offset, f.size, f.text) for _, _, f in walk(seen)] == [
        ("nlmsg_len", 0, 4, "36"),
        ("nlmsg_type", 4, 2, "RTM_GETNEIGH"),
        ("nlmsg_flags", 6, 2, "0x0"),
        ("nlmsg_seq", 8, 4, "7"),
        ("nlmsg_pid", 12, 4, "0"),
        ("ndm_family", 16, 1, "AF_INET"),
        ("ndm_ifindex", 20, 4, "5"),
        ("ndm_state", 24, 2, "NUD_STALE"),
        ("ndm_flags", 26, 1, "0x0"),
        ("ndm_type", 27, 1, "RTN_UNSPEC"),
        ("rta_len", 28, 2, "8"),
        ("rta_type", 30, 2, "NDA_DST"),
        ("payload", 32, 4, "192.168.0.3"),
    ]
    assert seen.rest is None


@pytest.mark.parametrize("row", [Neigh(address=Address("fd00::3"), mac=MAC), Fdb(mac=MAC, vtep=Address("192.0.2.1"))])
def test_our_own_requests_read_as_they_were_meant(row: Neigh | Fdb) -> None:
    """What the driver writes for a row is told with the row's own words and the flags that make it a replacement."""
    request = new_row(row, 9)
    (seen,) = dissect(message(request.kind, request.body, request.flags))
    texts = {field.name: field.text for _, _, field in walk(seen)}
    assert texts["nlmsg_flags"] == "NLM_F_REPLACE|NLM_F_CREATE"
    assert seen.text("NDA_LLADDR") == MAC
    assert seen.text("NDA_DST") == (row.address if isinstance(row, Neigh) else row.vtep)
    assert anatomy.is_bridge(seen) == isinstance(row, Fdb)
    assert "NUD_PERMANENT" in texts["ndm_state"]


def test_links_and_routes_are_named_too() -> None:
    """ifinfomsg with the kind inside IFLA_LINKINFO; rtmsg with destination, gateway and interface."""
    info = attribute(18, attribute(1, b"vxlan\0"))
    body = IFINFO.pack(0, 1, 5, 0x1003, 0) + attribute(3, b"vxlan1\0") + attribute(4, struct.pack("=I", 1450)) + info
    (link,) = dissect(message(16, body))
    assert (link.text("IFLA_IFNAME"), link.text("IFLA_MTU")) == ("vxlan1", "1450")
    assert link.text("IFLA_LINKINFO", "IFLA_INFO_KIND") == "vxlan"
    flags = link.field("ifi_flags")
    assert flags is not None
    assert flags.text == "IFF_UP|IFF_BROADCAST|IFF_MULTICAST"
    body = (
        RTM.pack(2, 24, 0, 0, 254, 3, 0, 1, 0) + attribute(1, bytes([10, 5, 0, 0])) + attribute(4, bytes([5, 0, 0, 0]))
    )
    (route,) = dissect(message(24, body))
    assert (route.text("RTA_DST"), route.text("RTA_OIF"), route.number("rtm_dst_len")) == ("10.5.0.0", "5", 24)
    table = route.field("rtm_table")
    assert table is not None
    assert table.text == "RT_TABLE_MAIN"


def test_several_messages_have_places_of_their_own() -> None:
    """Offsets count from the start of what was received, so that they fit its bytes."""
    raw = l3_miss() + l3_miss("192.168.0.4", 6)
    first, second = dissect(raw)
    assert (first.offset, second.offset) == (0, 36)
    index = second.field("ndm_ifindex")
    assert index is not None
    assert raw[index.offset : index.offset + 4] == struct.pack("=i", 6)


def test_what_is_cut_off_stays_as_rest() -> None:
    """An attribute that claims more than there is, and a body that is too short, are shown and not understood."""
    (seen,) = dissect(l3_miss()[:-2])
    assert seen.attributes == ()
    assert seen.rest == (28, 6)
    (short,) = dissect(message(30, b"\x02\x00"))
    assert short.body == ()
    assert short.rest == (16, 2)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_nothing(raw: bytes) -> None:
    """Whatever comes, the answer's places lie inside the bytes."""
    _check(raw)


@given(
    st.sampled_from([16, 17, 24, 25, 28, 29, 30, 3]),
    st.integers(0, 0xFFFF),
    st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=40)), max_size=6),
    st.binary(max_size=40),
    st.integers(0, 3),
)
def test_messages_of_any_content_raise_nothing(
    kind: int, flags: int, pairs: list[tuple[int, bytes]], head: bytes, cut: int
) -> None:
    """The same for what looks like a message, whole or cut."""
    raw = message(kind, head + b"".join(attribute(number, payload) for number, payload in pairs), flags)
    _check(raw[: len(raw) - cut])


def test_nests_end() -> None:
    """A nest inside a nest inside a nest does not go on for ever."""
    body = b""
    for _ in range(200):
        body = attribute(18, body)
    _check(message(16, IFINFO.pack(0, 1, 5, 0, 0) + body))


def _check(raw: bytes) -> None:
    for seen in dissect(raw):
        assert isinstance(seen, Message)
        ends = 0
        for _part, _depth, field in walk(seen):
            assert field.offset >= ends
            ends = field.offset + field.size
            assert ends <= len(raw)
            assert isinstance(field.text, str)
        if seen.rest is not None:
            assert ends <= seen.rest[0] < sum(seen.rest) <= len(raw)
        json.dumps(anatomy.plain(seen, raw))
