"""Tables and misses: our encoding against pyroute2, our decoding against any bytes, both against the kernel."""

from __future__ import annotations

import errno
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.marshal import MarshalRtnl
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from myoverlay.errors import KernelRefused
from myoverlay.kernel import neigh, rtnetlink
from myoverlay.kernel.frames import Announcer
from myoverlay.kernel.links import Links
from myoverlay.kernel.listener import READ_LIMIT, Overrun
from myoverlay.kernel.neigh import MissSocket, Tables, decode_misses, decode_row
from myoverlay.kernel.netns import Namespace
from myoverlay.values import Address, Fdb, Mac, Miss, Neigh

from .conftest import Host, bridge, library, soon, vxlan
from .given import addresses, fdbs, macs, neighs, rows, v4

MAC, OTHER = Mac("02:42:0a:05:00:63"), Mac("02:42:0a:05:00:64")
VTEP, ELSEWHERE = Address("192.0.2.7"), Address("192.0.2.8")


@pytest.fixture
def device(links: Links, overlay: Namespace) -> int:
    """The index of a VXLAN device for IPv4 and IPv6."""
    links.ensure(overlay, bridge(), deadline=soon(), ipv6=True)
    links.ensure(overlay, vxlan(), deadline=soon())
    index = links.ifindex(overlay, "vxlan0", deadline=soon())
    assert index is not None
    return index


@pytest.fixture
def tables(overlay: Namespace, device: int) -> Iterator[Tables]:
    with Tables(overlay, device) as both:
        yield both


@pytest.fixture
def quiet(tables: Tables, overlay: Namespace) -> Tables:
    """The same without IPv6, whose duplicate address detection on br0 is a miss too."""
    assert overlay.sysctls({f"net/ipv6/conf/{name}/disable_ipv6": "1" for name in ("br0", "vxlan0")}) == {}
    return tables


# Encoding and decoding.


def read(request: rtnetlink.Request) -> ndmsg:
    """A request of ours as pyroute2 reads it."""
    raw = rtnetlink.HEADER.pack(16 + len(request.body), request.kind, request.flags, 1, 0) + request.body
    (message,) = MarshalRtnl().parse(raw)
    return message


@given(neighs)
def test_neighbours_read_back(row: Neigh) -> None:
    """pyroute2 reads a permanent neighbour of the right family out of what we encode."""
    message = read(neigh.new_row(row, 7))
    family = socket.AF_INET if row.address.version == 4 else socket.AF_INET6
    assert (message["event"], message["ifindex"], message["family"]) == ("RTM_NEWNEIGH", 7, family)
    assert (message["state"], message["flags"]) == (0x80, 0)
    assert Address(message.get_attr("NDA_DST")) == row.address
    assert message.get_attr("NDA_LLADDR") == row.mac
    assert read(neigh.del_row(row, 7))["event"] == "RTM_DELNEIGH"


@given(fdbs)
def test_forwarding_rows_read_back(row: Fdb) -> None:
    """pyroute2 reads a row of the device itself, permanent and without ARP, with its MAC and its VTEP."""
    request = neigh.new_row(row, 9)
    assert request.flags == 0x500  # create and replace, never add
    for one in (request, neigh.del_row(row, 9)):
        message = read(one)
        assert (message["ifindex"], message["family"]) == (9, socket.AF_BRIDGE)
        assert (message["state"], message["flags"]) == (0xC0, 0x02)
        assert message.get_attr("NDA_LLADDR") == row.mac
        assert Address(message.get_attr("NDA_DST")) == row.vtep


@given(st.lists(rows, max_size=5), st.integers(1, 1 << 31))
def test_packed_rows_are_the_same_messages(many: list[neigh.Row], number: int) -> None:
    """What is packed in one go for thousands of rows is byte for byte what each one's request is."""
    singly = [rtnetlink.whole(neigh.new_row(row, 9), number + at) for at, row in enumerate(many)]
    assert neigh.pack_rows(many, 9, number) == singly


@given(rows)
def test_a_row_survives_the_way_there_and_back(row: neigh.Row) -> None:
    """decode_row undoes new_row, for its own device only."""
    body = neigh.new_row(row, 5).body
    assert decode_row(body, 5) == row
    assert decode_row(body, 6) is None


@given(rows, st.integers(0, 80))
def test_rows_that_are_cut_off_or_special_do_not_count(row: neigh.Row, length: int) -> None:
    """Short bodies and remotes with a port of their own are no rows of ours, and nothing is raised."""
    body = neigh.new_row(row, 5).body
    if length < len(body) - 2:
        assert decode_row(body[:length], 5) is None
    if isinstance(row, Fdb):
        assert decode_row(body + rtnetlink.attribute(neigh.NDA_PORT, b"\x12\xb6"), 5) is None


def miss(index: int, *, family: int = socket.AF_INET, **found: bytes) -> bytes:
    """A question as the kernel puts it (vxlan_fdb_info), with its marker VNI and cache info."""
    numbers = {"address": neigh.NDA_DST, "mac": neigh.NDA_LLADDR, "vni": neigh.NDA_VNI}
    body = neigh.NDM.pack(family, index, 0x02, 0x02, 1)
    body += b"".join(rtnetlink.attribute(numbers[name], raw) for name, raw in found.items())
    body += rtnetlink.attribute(3, bytes(16))
    return rtnetlink.HEADER.pack(16 + len(body), neigh.RTM_GETNEIGH, 0, 0, 0) + body


@given(addresses, macs, st.integers(1, 1 << 30))
def test_misses_are_decoded(address: Address, mac: Mac, index: int) -> None:
    """L3 with its marker VNI, L2 with the family of IPv4 whatever the overlay speaks, and several in one piece."""
    third = miss(index, address=address.packed, vni=struct.pack("=I", 1 << 24))
    second = miss(index, mac=mac.packed)
    assert decode_misses(third + second) == [Miss(ifindex=index, address=address), Miss(ifindex=index, mac=mac)]
    assert [one.layer for one in decode_misses(second + third)] == [2, 3]


@given(v4, st.integers(1, 1 << 30), st.integers(0, 71), st.integers(0, 255))
def test_a_usual_miss_is_read_as_any_other(address: Address, index: int, at: int, byte: int) -> None:
    """As the kernel asks in an overlay's namespace it is read at one go, and to the same; so with any byte changed."""
    body = neigh.NDM.pack(socket.AF_INET, index, 4, 0, 1) + rtnetlink.attribute(10, bytes(4))
    body += rtnetlink.attribute(neigh.NDA_DST, address.packed) + rtnetlink.attribute(neigh.NDA_VNI, b"\0\0\0\1")
    body += rtnetlink.attribute(3, bytes(16))
    raw = bytearray(rtnetlink.HEADER.pack(16 + len(body), neigh.RTM_GETNEIGH, 0, 0, 0) + body)
    assert neigh._usual_miss(bytes(raw)) == Miss(ifindex=index, address=address)
    raw[at] = byte
    assert decode_misses(bytes(raw)) == neigh._misses(bytes(raw))


@given(addresses, macs, st.integers(0, 200))
def test_a_cut_off_piece_gives_what_was_whole(address: Address, mac: Mac, length: int) -> None:
    """Truncation anywhere loses only the message it cuts."""
    first, second = miss(3, address=address.packed), miss(3, mac=mac.packed)
    whole = [Miss(ifindex=3, address=address), Miss(ifindex=3, mac=mac)]
    expected = (length >= len(first)) + (length >= len(first) + len(second))
    assert decode_misses((first + second)[:length]) == whole[:expected]


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(raw: bytes) -> None:
    """Whatever comes, decoders return values and never raise."""
    decode_misses(raw)
    decode_row(raw, 1)
    decode_misses(rtnetlink.HEADER.pack(16 + len(raw), neigh.RTM_GETNEIGH, 0, 0, 0) + raw)


@pytest.mark.parametrize("mac", ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:00:00:00:00:00"])
def test_questions_without_an_answer_are_left_out(mac: str) -> None:
    """Broadcast, multicast and all zeros belong to no container."""
    assert decode_misses(miss(3, mac=bytes.fromhex(mac.replace(":", "")))) == []
    assert decode_misses(miss(3)) == []


# The tables of a real device.


def many(count: int, version: int = 4) -> list[neigh.Row]:
    """Twice `count` rows, the FDB's before its neighbour's."""
    made: list[neigh.Row] = []
    for number in range(count):
        mac = Mac.unpack((b"\x02\x42\x0b" if version == 4 else b"\x02\x42\x0c") + number.to_bytes(3, "big"))
        address = (
            f"10.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}" if version == 4 else f"fd00::{number + 1:x}"
        )
        made.append(Fdb(mac=mac, vtep=Address(f"192.0.2.{2 + number % 250}")))
        made.append(Neigh(address=Address(address), mac=mac))
    return made


def test_set_rows_are_dumped_and_dumped_rows_are_what_pyroute2_sees(tables: Tables, overlay: Namespace) -> None:
    """Both families and both tables, applied twice: equal to what was set, to the first dump, and to the oracle's."""
    wanted = many(20) + many(20, version=6)
    assert tables.set(wanted) == []
    first = tables.dump()
    assert set(wanted) == first[0] | first[1]
    assert tables.set(wanted) == []
    assert tables.dump() == first
    with library(overlay) as ipr:
        fdb = [
            r for r in ipr.fdb("dump", ifindex=tables.ifindex) if r["flags"] == 0x02 and r["ifindex"] == tables.ifindex
        ]
        seen = {Fdb(mac=Mac(r.get_attr("NDA_LLADDR")), vtep=Address(r.get_attr("NDA_DST"))) for r in fdb}
        assert seen == first[1]
        for family in (socket.AF_INET, socket.AF_INET6):
            rows = [r for r in ipr.get_neighbours(family=family, ifindex=tables.ifindex) if r["state"] == 0x80]
            version = 4 if family == socket.AF_INET else 6
            found = {Neigh(address=Address(r.get_attr("NDA_DST")), mac=Mac(r.get_attr("NDA_LLADDR"))) for r in rows}
            assert found == {row for row in first[0] if row.address.version == version}


def test_replaying_from_any_offset_leaves_the_tables_equal(tables: Tables) -> None:
    """A batch that is applied again from its middle changes nothing."""
    wanted = many(10)
    tables.set(wanted)
    first = tables.dump()
    for offset in range(0, len(wanted), 3):
        assert tables.set(wanted[offset:] + wanted[:offset]) == []
        assert tables.dump() == first


def test_a_moved_mac_has_one_remote(tables: Tables, overlay: Namespace) -> None:
    """Setting the FDB row of a MAC to another VTEP leaves exactly that one."""
    for vtep in (VTEP, ELSEWHERE, VTEP, ELSEWHERE):
        assert tables.set([Fdb(mac=MAC, vtep=vtep)]) == []
    assert tables.dump()[1] == {Fdb(mac=MAC, vtep=ELSEWHERE)}
    with library(overlay) as ipr:
        assert len([r for r in ipr.fdb("dump") if r.get_attr("NDA_LLADDR") == MAC and r.get_attr("NDA_DST")]) == 1


def test_a_neighbour_is_replaced(tables: Tables) -> None:
    """The same address at another MAC replaces the row."""
    address = Address("10.5.0.99")
    tables.set([Neigh(address=address, mac=MAC)])
    tables.set([Neigh(address=address, mac=OTHER)])
    assert tables.dump()[0] == {Neigh(address=address, mac=OTHER)}


def test_a_foreign_row_is_put_right(tables: Tables, overlay: Namespace) -> None:
    """A row with a port of its own does not count as ours, and setting ours replaces it."""
    with library(overlay) as ipr:
        ipr.fdb("add", ifindex=tables.ifindex, lladdr=MAC, dst=VTEP, port=9999, flags=0x02, state=0xC0)
    assert tables.dump()[1] == set()
    assert tables.set([Fdb(mac=MAC, vtep=VTEP)]) == []
    assert tables.dump()[1] == {Fdb(mac=MAC, vtep=VTEP)}


def test_a_row_that_is_known_by_its_bytes_is_looked_at_all_the_same(tables: Tables, overlay: Namespace) -> None:
    """What we wrote and read before counts no more once somebody made it age, or gave its remote a port."""
    address = Address("10.5.0.99")
    ours = [Fdb(mac=MAC, vtep=VTEP), Neigh(address=address, mac=MAC)]
    tables.set(ours)
    with library(overlay) as ipr:
        for known in (False, True):
            assert not known or tables.dump() == ({ours[1]}, {ours[0]})
            ipr.fdb("del", ifindex=tables.ifindex, lladdr=MAC, dst=VTEP, flags=0x02, state=0xC0)
            ipr.fdb("add", ifindex=tables.ifindex, lladdr=MAC, dst=VTEP, port=9999, flags=0x02, state=0xC0)
            ipr.neigh("replace", ifindex=tables.ifindex, dst=address, lladdr=MAC, state=0x02)
            assert tables.dump() == (set(), set())
            tables.set(ours)
            with Tables(overlay, tables.ifindex) as other:
                assert other.dump() == ({ours[1]}, {ours[0]})


def test_unset_removes_and_absent_is_success(tables: Tables) -> None:
    """All rows go, and unsetting them again is no failure."""
    wanted = many(20) + many(20, version=6)
    tables.set(wanted)
    assert tables.unset(wanted[:10]) == []
    assert set(wanted[10:]) == set.union(*map(set, tables.dump()))
    assert tables.unset(wanted) == []
    assert tables.unset(wanted) == []
    assert tables.dump() == (set(), set())


def test_unset_leaves_rows_that_say_something_newer(tables: Tables) -> None:
    """Removal is by (address, MAC) and by (MAC, VTEP): what points elsewhere by now stays."""
    address = Address("10.5.0.99")
    new = [Fdb(mac=MAC, vtep=ELSEWHERE), Neigh(address=address, mac=OTHER)]
    tables.set(new)
    assert tables.unset([Fdb(mac=MAC, vtep=VTEP), Neigh(address=address, mac=MAC)]) == []
    assert set.union(*map(set, tables.dump())) == set(new)


def test_refused_rows_come_back_with_the_reason_and_the_others_are_done(
    tables: Tables, links: Links, overlay: Namespace
) -> None:
    """An IPv6 neighbour where IPv6 is off is refused alone, by name and errno."""
    overlay.sysctl("net/ipv6/conf/vxlan0/disable_ipv6", "1")
    bad, good = Neigh(address=Address("fd00::9"), mac=MAC), Neigh(address=Address("10.5.0.9"), mac=MAC)
    [(row, said)] = tables.set([bad, good])
    assert row == bad
    assert said.code == errno.EINVAL
    assert str(said).startswith(f"setting fd00::9 lladdr {MAC} on interface {tables.ifindex}: ")
    assert tables.dump()[0] == {good}


def test_failures_of_a_vanished_device_are_all_told(tables: Tables, links: Links, overlay: Namespace) -> None:
    """Each of 2,500 rows comes back in its place when the device is gone; unsetting them is success."""
    links.remove(overlay, "vxlan0", deadline=soon())
    wanted = many(1250)
    failed = tables.set(wanted)
    assert [row for row, _ in failed] == wanted
    assert {said.code for _, said in failed} == {errno.ENODEV}
    assert tables.dump() == (set(), set())


@pytest.mark.parametrize("count", [200, 1100])
def test_lost_answers_are_asked_for_again(tables: Tables, links: Links, overlay: Namespace, count: int) -> None:
    """With a receive buffer too small for a batch's errors it is halved until every answer arrives, as is the next."""
    links.remove(overlay, "vxlan0", deadline=soon())
    tables._wire._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    wanted = many(count)
    assert [row for row, _ in tables.set(wanted)] == wanted


def test_a_table_that_keeps_changing_is_not_believed(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dump the kernel calls interrupted is repeated a few times and then refused, never taken for complete."""
    tables.set(many(5))
    honest = tables._wire._read
    asked = 0

    def interrupted() -> bytes:
        nonlocal asked
        asked += 1
        told = b""
        for kind, flags, sequence, body in rtnetlink.replies(honest()):
            head = rtnetlink.HEADER.pack(16 + len(body), kind, flags | rtnetlink.NLM_F_DUMP_INTR, sequence, 0)
            told += head + body + bytes(-len(body) & 3)
        return told

    monkeypatch.setattr(tables._wire, "_read", interrupted)
    with pytest.raises(KernelRefused) as told:
        tables.dump()
    assert told.value.code == errno.EINTR
    assert asked >= rtnetlink.DUMP_ATTEMPTS
    monkeypatch.undo()
    assert len(tables.dump()[0]) == 5


def test_threads_share_tables(tables: Tables) -> None:
    """Batches of several threads do not mix, and dumps between them are whole."""
    wanted = many(400)
    faults: list[object] = []

    def work(part: list[neigh.Row]) -> None:
        for _ in range(5):
            faults.extend(tables.set(part))
            if not set(part) <= set.union(*map(set, tables.dump())):
                faults.append("missing")

    threads = [threading.Thread(target=work, args=(wanted[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert faults == []
    assert set.union(*map(set, tables.dump())) == set(wanted)


def test_ten_thousand_of_each(tables: Tables) -> None:
    """20,000 rows are set, dumped and compared fast enough to do so every few seconds."""
    wanted = many(10_000)
    began = time.perf_counter()
    assert tables.set(wanted) == []
    set_at = time.perf_counter()
    neighs_there, fdbs_there = tables.dump()
    dumped_at = time.perf_counter()
    assert neighs_there | fdbs_there == set(wanted)
    compared_at = time.perf_counter()
    assert tables.unset(wanted) == []
    unset_at = time.perf_counter()
    times = [set_at - began, dumped_at - set_at, compared_at - dumped_at, unset_at - compared_at]
    print(
        "\n10,000 FDB + 10,000 neighbours: set {:.0f}, dump {:.0f}, compare {:.0f}, unset {:.0f} ms".format(
            *(1000 * t for t in times)
        )
    )
    assert sum(times) < 5


# Misses.


def wait(sock: MissSocket, seconds: float = 5) -> list[Miss]:
    select.select([sock], [], [], seconds)
    return sock.read()


def test_both_misses_are_heard_and_answered(two_hosts: tuple[Host, Host]) -> None:
    """L3 miss, rows, announcement: what the container had queued is delivered. L2 miss: the next packet is."""
    here, there = two_hosts
    a, b = here.container(2), there.container(3)
    there.knows((a, here))
    with (
        MissSocket(here.overlay) as misses,
        Announcer(here.overlay, "br0") as announcer,
        a.udp() as ask,
        b.udp() as hear,
    ):
        for number in range(3):
            ask.sendto(b"%d" % number, (b.address, 5000))
        while Miss(ifindex=here.tables.ifindex, address=b.address) not in (found := wait(misses)):
            assert found, "no L3 miss came"
        began = time.perf_counter()
        here.knows((b, there))
        announcer.announce(b.address, b.mac)
        assert sorted(hear.recv(100) for _ in range(3)) == [b"0", b"1", b"2"]
        took = time.perf_counter() - began
        print(f"\nL3 miss to three delivered: {1000 * took:.2f} ms")
        assert took < 0.5  # the container by itself would ask again after a second

        here.tables.unset([Fdb(mac=b.mac, vtep=there.vtep)])
        ask.sendto(b"lost", (b.address, 5000))
        while Miss(ifindex=here.tables.ifindex, mac=b.mac) not in (found := wait(misses)):
            assert found, "no L2 miss came"
        here.knows((b, there))
        ask.sendto(b"found", (b.address, 5000))
        assert hear.recv(100) == b"found"


def test_misses_of_ipv6_are_heard_and_answered(two_hosts: tuple[Host, Host]) -> None:
    """The same over IPv6: neighbour solicitation, L3 miss, rows, unsolicited advertisement, delivery."""
    here, there = two_hosts
    for one in two_hosts:
        one.links.remove(one.overlay, "vxlan0", deadline=soon())
        one.links.remove(one.overlay, "br0", deadline=soon())
        one.tables.close()
        one.build("fd00:5::1", 64)
    a, b = here.container(2, "fd00:5::2", 64), there.container(3, "fd00:5::3", 64)
    there.knows((a, here))
    with (
        MissSocket(here.overlay) as misses,
        Announcer(here.overlay, "br0") as announcer,
        a.udp() as ask,
        b.udp() as hear,
    ):
        ask.sendto(b"six", (b.address, 5000))
        while Miss(ifindex=here.tables.ifindex, address=b.address) not in (found := wait(misses)):
            assert found, "no L3 miss came"
        here.knows((b, there))
        announcer.announce(b.address, b.mac)
        assert hear.recv(100) == b"six"


def test_rows_we_write_are_not_heard_as_questions(quiet: Tables, overlay: Namespace) -> None:
    """The kernel's filter drops announcements of rows, so a big batch cannot fill the buffer."""
    with MissSocket(overlay) as misses:
        quiet.set(many(2000))
        assert not select.select([misses], [], [], 0)[0]
        assert misses.read() == []


def test_an_overrun_is_told_once_and_loses_nothing_read_before(quiet: Tables, overlay: Namespace) -> None:
    """With a small buffer a storm gives Overrun; the misses before the gap come first, and reading goes on after it."""
    with MissSocket(overlay) as misses:
        misses._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        storm(overlay, 300)
        told, heard = 0, 0
        for _ in range(50):
            try:
                heard += len(misses.read())
            except Overrun:
                told += 1
        assert told == 1
        assert heard > 0
        storm(overlay, 1)
        assert len(wait(misses)) == 1


def test_a_storm_is_heard_whole(quiet: Tables, overlay: Namespace) -> None:
    """10,000 misses at once fit into the buffer, and each read stays bounded."""
    with MissSocket(overlay) as misses:
        storm(overlay, 10_000)
        began, heard, longest = time.perf_counter(), 0, 0
        while found := misses.read():
            heard += len(found)
            longest = max(longest, len(found))
        print(f"\n10,000 misses read in {1000 * (time.perf_counter() - began):.0f} ms")
        assert heard == 10_000
        assert longest <= READ_LIMIT


def storm(overlay: Namespace, count: int) -> None:
    """ARP questions for so many addresses, sent out of the VXLAN device."""
    with overlay.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("vxlan0", 0))
        for number in range(count):
            address = struct.pack("!I", (10 << 24 | 80 << 16) + number)
            arp = struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, MAC.packed, b"\x0a\x05\x00\x02", bytes(6), address)
            sock.send(b"\xff" * 6 + MAC.packed + b"\x08\x06" + arp)


@given(st.lists(v4, max_size=3), st.integers(0, 40))
def test_verdicts_survive_any_tail(found: list[Address], length: int) -> None:
    """An error message with any tail gives a code and a sentence."""
    tail = b"".join(rtnetlink.attribute(1, one.packed) for one in found)
    body = (struct.pack("=i", -22) + bytes(16) + tail)[:length]
    code, reason = rtnetlink.verdict(rtnetlink.Reply(2, 0x300, 1, body))
    assert code == (22 if length >= 4 else errno.EBADMSG)
    assert reason


def test_tables_need_their_namespace(spaces: Callable[[str], Namespace]) -> None:
    """Rows for a device that is not there are refused row by row, and the socket is ours to close."""
    with Tables(spaces("empty"), 4711) as tables:
        [(_, said)] = tables.set([Fdb(mac=MAC, vtep=VTEP)])
        assert said.code == errno.ENODEV
        assert tables.dump() == (set(), set())
