"""`myoverlay watch`: messages become events and lines; each miss gets its outcome, once."""

from __future__ import annotations

import json
import socket
import struct

from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from myoverlay.cli.follow import Event, Json, Missed, NetworkFollower, Outcome, Seen, Text, Told, describe
from myoverlay.cli.watch import watch_command
from myoverlay.kernel.anatomy import dissect
from myoverlay.kernel.rtnetlink import HEADER, attribute
from myoverlay.values import Address, Mac

MAC, OTHER = Mac("02:42:c0:a8:00:03"), Mac("02:42:c0:a8:00:04")
ADDRESS, VTEP = Address("192.168.0.3"), Address("172.30.0.12")
NDM = struct.Struct("=B3xiHBB")
GET, NEW, DEL = 30, 28, 29
PERMANENT, FAILED, SELF = 0x80, 0x20, 0x02


def neighbour(kind: int, family: int, *pairs: tuple[int, bytes], state: int = PERMANENT, index: int = 5) -> bytes:
    body = NDM.pack(family, index, state, SELF if family == socket.AF_BRIDGE else 0, 0)
    body += b"".join(attribute(number, payload) for number, payload in pairs)
    return HEADER.pack(HEADER.size + len(body), kind, 0, 0, 0) + body


def l3(index: int = 5) -> bytes:
    return neighbour(GET, socket.AF_INET, (1, ADDRESS.packed), state=4, index=index)


def l2(mac: Mac = MAC) -> bytes:
    return neighbour(GET, socket.AF_INET, (2, mac.packed), state=4)


ROW = neighbour(NEW, socket.AF_INET, (1, ADDRESS.packed), (2, MAC.packed))
FDB = neighbour(NEW, socket.AF_BRIDGE, (2, MAC.packed), (1, VTEP.packed))
LEARNED = neighbour(NEW, socket.AF_BRIDGE, (2, MAC.packed), (9, struct.pack("=I", 2)))


def names(index: int) -> str:
    return {5: "vxlan1", 2: "br0"}.get(index, f"#{index}")


def text(events: list[Event], colour: bool = False) -> list[str]:
    return [line[17:] for event in events for line in Text(names, colour).lines(event)]


def test_misses_read_as_the_tutorial_wrote_them() -> None:
    """An L3 miss names the address, an L2 miss the MAC; both the device."""
    follower = NetworkFollower()
    assert text(follower.hear(l3() + l2(), 1.0)) == ["L3 miss 192.168.0.3 vxlan1", f"L2 miss {MAC} vxlan1"]
    assert follower.count == 2


def test_a_row_is_the_outcome_of_its_miss() -> None:
    """The neighbour's row answers the L3 miss, the forwarding row the L2 miss, with the time it took; only once."""
    follower = NetworkFollower()
    follower.hear(l3() + l2(), 1.0)
    assert text(follower.hear(ROW, 1.004)) == [f"  -> row 192.168.0.3 lladdr {MAC} vxlan1 after 4.0 ms"]
    assert text(follower.hear(FDB, 1.0055)) == [f"  -> row {MAC} dst 172.30.0.12 vxlan1 after 5.5 ms"]
    assert follower.hear(ROW + FDB, 1.01) == []
    assert not follower.waiting


def test_what_is_no_answer_is_not_taken_for_one() -> None:
    """A failed entry, another device's row, the bridge's own learning and a row's removal leave the miss open."""
    follower = NetworkFollower()
    follower.hear(l3() + l2(), 1.0)
    failed = neighbour(NEW, socket.AF_INET, (1, ADDRESS.packed), (2, MAC.packed), state=FAILED)
    elsewhere = neighbour(NEW, socket.AF_INET, (1, ADDRESS.packed), (2, MAC.packed), index=6)
    removed = neighbour(DEL, socket.AF_BRIDGE, (2, MAC.packed), (1, VTEP.packed))
    assert follower.hear(failed + elsewhere + LEARNED + removed, 1.1) == []
    assert follower.waiting


def test_nothing_is_an_outcome_too() -> None:
    """A miss that nobody answers is told as such when its time is over, with how often it was asked."""
    follower = NetworkFollower(patience=0.5)
    follower.hear(l3(), 1.0)
    follower.hear(l3(), 1.3)
    assert follower.due(1.49) == []
    assert text(follower.due(1.5)) == ["  -> nothing for 192.168.0.3 within 500 ms, asked 2 times"]
    assert follower.due(9.0) == []


def test_other_groups_are_told_where_they_are_asked_for() -> None:
    """Rows that come and go are told with --neigh alone, in the words of `ip monitor` and `bridge monitor`."""
    assert NetworkFollower().hear(ROW, 1.0) == []
    follower = NetworkFollower(frozenset({"neigh"}))
    gone = neighbour(DEL, socket.AF_INET, (1, ADDRESS.packed), (2, MAC.packed))
    assert text(follower.hear(ROW + LEARNED + gone, 1.0)) == [
        f"neigh 192.168.0.3 lladdr {MAC} PERMANENT dev vxlan1",
        f"fdb {MAC} master br0 PERMANENT dev vxlan1",
        f"deleted neigh 192.168.0.3 lladdr {MAC} PERMANENT dev vxlan1",
    ]


def test_links_and_routes_are_described() -> None:
    """A link with its kind, MTU and bridge; a route with its gateway; a default route by that name."""
    body = struct.pack("=BxHiII", 0, 1, 5, 1, 0) + attribute(3, b"vxlan1\0") + attribute(18, attribute(1, b"vxlan\0"))
    body += attribute(4, struct.pack("=I", 1450)) + attribute(10, struct.pack("=I", 2))
    (link,) = dissect(HEADER.pack(HEADER.size + len(body), 17, 0, 0, 0) + body)
    assert describe(link) == "deleted link vxlan1 type vxlan <UP> mtu 1450 master {2}"
    body = struct.pack("=8BI", 2, 0, 0, 0, 254, 3, 0, 1, 0) + attribute(5, bytes([10, 0, 0, 1]))
    (route,) = dissect(HEADER.pack(HEADER.size + len(body), 24, 0, 0, 0) + body)
    assert describe(route) == "route default via 10.0.0.1"


def test_a_limit_takes_no_more_but_waits_for_outcomes() -> None:
    """After --count no miss is taken, and those that are open still get theirs."""
    follower = NetworkFollower(limit=1)
    follower.hear(l3() + l2(), 1.0)
    assert follower.full
    assert follower.count == 1
    assert isinstance(follower.hear(ROW, 1.1)[0], Outcome)


def test_one_device_alone() -> None:
    """--device passes over the others' messages."""
    follower = NetworkFollower(only=lambda index: index == 5)
    assert follower.hear(l3(index=6), 1.0) == []
    assert isinstance(follower.hear(l3(), 1.0)[0], Missed)


def test_raw_shows_every_byte_once() -> None:
    """The anatomy's rows hold the message's bytes, padding of ndmsg apart, each part in a colour of its own."""
    raw = l3()
    (seen, _) = NetworkFollower(raw=True).hear(raw, 1.0)
    lines = Text(names, False).lines(seen)
    assert lines[1].split() == ["0004", "1e", "00", "nlmsghdr", "nlmsg_type", "=", "RTM_GETNEIGH"]
    assert lines[-1].split() == ["0020", "c0", "a8", "00", "03", "rtattr", "payload", "=", "192.168.0.3"]
    shown = b"".join(bytes.fromhex(line[8:55]) for line in lines)
    assert shown == raw[:17] + raw[20:]
    painted = Text(names, True).lines(seen)
    assert len({line[:5] for line in painted}) == 3
    assert all(line.endswith("\x1b[0m") for line in painted)


def test_json_is_an_object_a_line() -> None:
    """Each event says what it is; the bytes carry the fields by name."""
    follower = NetworkFollower(frozenset({"neigh"}), raw=True)
    events = follower.hear(l3(), 1.0) + follower.hear(ROW, 1.002)
    told = [json.loads(line) for event in events for line in Json(names).lines(event)]
    assert [one["event"] for one in told] == ["bytes", "miss", "bytes", "outcome", "notice"]
    assert told[0]["ndmsg"]["ndm_ifindex"] == 5
    assert told[0]["bytes"] == l3().hex()
    assert told[1] == {
        "event": "miss", "time": 1.0, "layer": 3, "subject": "192.168.0.3", "device": "vxlan1", "ifindex": 5
    }  # fmt: skip
    assert (told[3]["ms"], told[3]["row"]) == (2.0, f"192.168.0.3 lladdr {MAC}")


@given(st.lists(st.one_of(st.binary(max_size=200), st.sampled_from([l3(), l2(), ROW, FDB, LEARNED])), max_size=8))
def test_nothing_that_comes_raises(pieces: list[bytes]) -> None:
    """Whatever bytes come, events are written as text and as JSON."""
    follower = NetworkFollower(frozenset({"neigh", "link", "route"}), raw=True)
    events = [event for at, piece in enumerate(pieces) for event in follower.hear(piece, float(at))]
    events += follower.due(1e9)
    for event in events:
        assert isinstance(event, Missed | Outcome | Told | Seen)
        assert Text(names, True).lines(event)
        json.loads("\n".join(Json(names).lines(event)))


def test_help_has_examples() -> None:
    """The command's help says how it is used."""
    shown = CliRunner().invoke(watch_command, ["--help"])
    assert shown.exit_code == 0
    assert "myoverlay watch --raw --app-solicit eth0" in shown.output
