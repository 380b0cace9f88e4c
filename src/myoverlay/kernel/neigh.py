"""The VXLAN device's two tables, and the kernel's questions about them. The hot path.

*Neighbours* answer containers' ARP (`proxy`), the *FDB* says behind which VTEP a MAC is. A *miss* is the kernel's
RTM_GETNEIGH to everybody who listens. Sources: drivers/net/vxlan/vxlan_core.c,
net/core/neighbour.c, net/core/rtnetlink.c.
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from sys import byteorder
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias

from myoverlay.errors import KernelRefused
from myoverlay.kernel.listener import Listener, attach_filter
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.rtnetlink import (
    ATTRIBUTE,
    HEADER,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    Failure,
    Request,
    Wire,
    attribute,
    attributes,
    replies,
    whole,
)
from myoverlay.values import Address, Fdb, Mac, Miss, Neigh

RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTNLGRP_NEIGH = 3
NDA_DST, NDA_LLADDR, NDA_PORT, NDA_VNI, NDA_IFINDEX, NDA_MASTER = 1, 2, 6, 7, 8, 9
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
NTF_SELF, NTF_MASTER, NTF_PROXY = 0x02, 0x04, 0x08

#: struct ndmsg: family, three bytes of nothing, interface index, state, flags, type.
NDM = struct.Struct("=B3xiHBB")
#: A row of IPv4 as a whole message. A neighbour: what begins each, its number, what follows up to the address, the
#: address, what NDA_LLADDR begins with, the MAC. A row of the FDB: the same without an address, then the remote.
_NEIGH4, _FDB4 = struct.Struct("=8sI20s4s4s6s2x"), struct.Struct("=8sI20s6s2x8s")
#: Where in it, and in what the kernel tells of it, the parts stand that say what row it is: 20 bytes of both kinds.
_SAYS, _SAYS_NEIGH, _SAYS_FDB = slice(28, 48), slice(12, 32), slice(-40, -20)
_LLADDR = struct.Struct("=HH6s2x")
#: The attributes of usual rows of IPv4 as they are read, and how each of them begins.
_SEEN_NEIGH4, _SEEN_FDB4 = struct.Struct("=I4sI6s"), struct.Struct("=I6s2xI4sI")
_BEGIN_DST, _BEGIN_LLADDR = (int.from_bytes(struct.pack("=HH", *one), byteorder) for one in ((8, 1), (10, 2)))
#: Where ndmsg has its flags.
_FLAGS = 10
#: The attribute that ends a row's message and is another each time: how long ago it was used (NDA_CACHEINFO).
_AGES = struct.pack("=HH", 20, 3)
_BEGIN_AGES = int.from_bytes(_AGES, byteorder)
#: The type of a row that is nothing special (RTN_UNICAST).
_UNICAST = 1
#: How NDA_LINK_NETNSID begins.
_NETNSID = struct.pack("=HH", 8, 10)
#: A miss as usual (vxlan_fdb_info): a namespace's id, the address, the marker, ages. There may be 20,000 a second.
_MISS4 = struct.Struct("=IH10x4xi4x4s4x4s4s4s4x4s16x")
_MISS4_HEAD = (_MISS4.size, RTM_GETNEIGH)
_MISS4_PARTS = (_NETNSID, struct.pack("=HH", 8, NDA_DST), struct.pack("=HH", 8, NDA_VNI), _AGES)
#: A remote that has one of these is not the device's ordinary one.
_OWN_REMOTE = frozenset((NDA_PORT, NDA_VNI, NDA_IFINDEX))
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}

Row: TypeAlias = Neigh | Fdb
Failed: TypeAlias = list[tuple[Row, KernelRefused]]
# Named here because `set` means a method inside the class.
Dump: TypeAlias = tuple[set[Neigh], set[Fdb]]
_Rows: TypeAlias = set[Row]


def new_row(row: Row, ifindex: int) -> Request:
    """The request that makes a row so, whatever it was. A unicast MAC keeps one remote: the FDB replaces it."""
    return Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, _row(row, ifindex))


def del_row(row: Row, ifindex: int) -> Request:
    """The request that removes a row. The FDB's names the VTEP too: another VTEP's row of that MAC stays (ENOENT)."""
    return Request(RTM_DELNEIGH, 0, _row(row, ifindex))


def static_row(mac: Mac, port: int) -> Request:
    """The request that ties a MAC to a bridge's port.

    `static` (NOARP), not PERMANENT: for a bridge the latter means its own address, and it would keep the frames.
    """
    return Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, _bridge_row(mac, port))


def del_static_row(mac: Mac, port: int) -> Request:
    return Request(RTM_DELNEIGH, 0, _bridge_row(mac, port))


def _bridge_row(mac: Mac, port: int) -> bytes:
    return NDM.pack(socket.AF_BRIDGE, port, NUD_NOARP, NTF_MASTER, 0) + attribute(NDA_LLADDR, mac.packed)


def _row(row: Row, ifindex: int) -> bytes:
    if isinstance(row, Neigh):
        head = NDM.pack(_FAMILY[row.address.version], ifindex, NUD_PERMANENT, 0, 0)
        return head + attribute(NDA_DST, row.address.packed) + attribute(NDA_LLADDR, row.mac.packed)
    head = NDM.pack(socket.AF_BRIDGE, ifindex, NUD_NOARP | NUD_PERMANENT, NTF_SELF, 0)
    return head + _LLADDR.pack(10, NDA_LLADDR, row.mac.packed) + _remote(row.vtep)


def pack_rows(rows: Sequence[Row], ifindex: int, number: int) -> list[bytes]:
    """The messages of `new_row` for them all, numbered from there on. There may be 20,000 at once."""
    begin = HEADER.pack(48, RTM_NEWNEIGH, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE, 0, 0)[:8]
    neigh = bytes(4) + NDM.pack(socket.AF_INET, ifindex, NUD_PERMANENT, 0, 0) + ATTRIBUTE.pack(8, NDA_DST)
    fdb = bytes(4) + NDM.pack(socket.AF_BRIDGE, ifindex, NUD_NOARP | NUD_PERMANENT, NTF_SELF, 0)
    hardware = ATTRIBUTE.pack(10, NDA_LLADDR)
    fdb += hardware
    pack_neigh, pack_fdb, aton, unhex = _NEIGH4.pack, _FDB4.pack, socket.inet_aton, bytes.fromhex
    packed: list[bytes] = []
    for at, row in enumerate(rows, number):
        mac = unhex(row.mac.replace(":", ""))
        if type(row) is Fdb:  # `isinstance` takes ten times as long to say no
            remote = _remote(row.vtep)
            if len(remote) == 8:
                packed.append(pack_fdb(begin, at, fdb, mac, remote))
                continue
        elif type(row) is Neigh and ":" not in row.address:
            packed.append(pack_neigh(begin, at, neigh, aton(row.address), hardware, mac))
            continue
        packed.append(whole(new_row(row, ifindex), at))
    return packed


@lru_cache(maxsize=4096)
def _remote(vtep: Address) -> bytes:
    return attribute(NDA_DST, vtep.packed)


def decode_misses(raw: bytes) -> list[Miss]:
    """What the kernel asks in one received piece. What is malformed or no question is left out, never raised.

    The family is AF_INET for every L2 miss, so it tells nothing; an address of any kind makes it an L3 miss. NDA_VNI
    holds a marker in L3 misses and is ignored. Misses for multicast cannot be answered by a row and are left out.
    """
    usual = _usual_miss(raw)
    return [usual] if usual is not None else _misses(raw)


def _misses(raw: bytes) -> list[Miss]:
    misses: list[Miss] = []
    for reply in replies(raw):
        if reply.kind != RTM_GETNEIGH or len(reply.body) < NDM.size:
            continue
        found = attributes(reply.body, NDM.size)
        address, mac = _address(found.get(NDA_DST)), _mac(found.get(NDA_LLADDR))
        if address is not None or mac is not None:
            misses.append(Miss(ifindex=NDM.unpack_from(reply.body)[1], address=address, mac=mac))
    return misses


def _usual_miss(raw: bytes) -> Miss | None:
    """A question for an IPv4 address, as the kernel writes it where the device's socket is in another namespace."""
    if len(raw) != _MISS4.size:
        return None
    length, kind, ifindex, first, second, address, third, fourth = _MISS4.unpack(raw)
    if (length, kind) != _MISS4_HEAD or (first, second, third, fourth) != _MISS4_PARTS:
        return None
    return Miss(ifindex=ifindex, address=str.__new__(Address, socket.inet_ntoa(address)))


def decode_row(body: bytes, ifindex: int) -> Row | None:
    """A row of a dump as its value; None for another device's and for what we never write.

    Left out: what ages, proxies and multicast; the default (all zeros); and remotes with a port, VNI or interface of
    their own. A row we want counts as missing then, and writing it puts it right.
    """
    if len(body) < NDM.size:
        return None
    family, index, state, flags, _type = NDM.unpack_from(body)
    if index != ifindex or not state & NUD_PERMANENT or flags & NTF_PROXY:
        return None
    if family == socket.AF_BRIDGE:
        return (_usual_fdb(body) or _fdb(attributes(body, NDM.size))) if flags & NTF_SELF else None
    # The kernel writes these two first (neigh_fill_info); what else there is says nothing to us.
    if family == socket.AF_INET and len(body) >= NDM.size + _SEEN_NEIGH4.size:
        one, raw, other, hardware = _SEEN_NEIGH4.unpack_from(body, NDM.size)
        if one == _BEGIN_DST and other == _BEGIN_LLADDR and (mac := _mac(hardware)) is not None:
            return Neigh(address=str.__new__(Address, socket.inet_ntoa(raw)), mac=mac)
    found = attributes(body, NDM.size, 2)
    mac, address = _mac(found.get(NDA_LLADDR)), _address(found.get(NDA_DST))
    return Neigh(address=address, mac=mac) if mac is not None and address is not None else None


def _usual_fdb(body: bytes) -> Fdb | None:
    """A row that is nothing but a MAC and a remote of IPv4, by where these stand; None for every other.

    A device whose socket is in another namespace has that namespace's id before them (vxlan_fdb_info).
    """
    start = NDM.size + (8 if body[NDM.size : NDM.size + 4] == _NETNSID else 0)
    if len(body) != start + _SEEN_FDB4.size + 16:
        return None
    one, hardware, other, raw, last = _SEEN_FDB4.unpack_from(body, start)
    if one != _BEGIN_LLADDR or other != _BEGIN_DST or last != _BEGIN_AGES:
        return None
    mac, vtep = _mac(hardware), _vtep(raw)
    return Fdb(mac=mac, vtep=vtep) if mac is not None and vtep is not None else None


def _fdb(found: dict[int, bytes]) -> Fdb | None:
    if not _OWN_REMOTE.isdisjoint(found):
        return None
    mac, vtep = _mac(found.get(NDA_LLADDR)), _vtep(found.get(NDA_DST, b""))
    return Fdb(mac=mac, vtep=vtep) if mac is not None and vtep is not None else None


def _address(raw: bytes | None) -> Address | None:
    # inet_ntoa gives the normal form at once; `Address.unpack` would parse it again, for 3 µs a row.
    if raw is None or len(raw) not in (4, 16):
        return None
    return str.__new__(Address, socket.inet_ntoa(raw)) if len(raw) == 4 else Address.unpack(raw)


def _mac(raw: bytes | None) -> Mac | None:
    if raw is None or len(raw) != 6 or raw[0] & 1 or raw == bytes(6):
        return None
    return str.__new__(Mac, raw.hex(":"))


#: There are far fewer VTEPs than rows.
_vtep = lru_cache(maxsize=4096)(_address)


class SeenRow(NamedTuple):
    """A row of either table as it is, whoever wrote it. `key` is an address or MAC, `to` the MAC or VTEP, if any."""

    table: str
    key: str
    to: str
    state: str


_STATES = (
    (0x01, "incomplete"),
    (0x02, "reachable"),
    (0x04, "stale"),
    (0x08, "delay"),
    (0x10, "probe"),
    (0x20, "failed"),
)


def seen_row(body: bytes, ifindex: int) -> SeenRow | None:
    """Any row of the device's own tables, in words; None for another device's and for the bridge's view of it."""
    if len(body) < NDM.size:
        return None
    family, index, state, flags, _type = NDM.unpack_from(body)
    found = attributes(body, NDM.size)
    mac = found.get(NDA_LLADDR, b"").hex(":")
    address = _address(found.get(NDA_DST)) or ""
    if index != ifindex or (family != socket.AF_BRIDGE and state == NUD_NOARP):
        return None  # the kernel's own for multicast, which `ip neigh` does not show either
    # The FDB's rows are NOARP|PERMANENT or NOARP when a person wrote them, and REACHABLE when the device learned them.
    words = [word for bit, word in _STATES if state & bit]
    words = ["permanent"] if state & NUD_PERMANENT else words or (["noarp"] if state & NUD_NOARP else ["none"])
    if family == socket.AF_BRIDGE:
        learned = not state & (NUD_PERMANENT | NUD_NOARP)
        return SeenRow("fdb", mac, address, "learned" if learned else words[0]) if flags & NTF_SELF else None
    return SeenRow("arp", address, mac, words[0])


class Tables:
    """Both tables of one VXLAN device. Safe from several threads; batches do not mix."""

    def __init__(self, ns: Namespace, ifindex: int) -> None:
        """Raises KernelRefused where no socket can be had there. The device itself is not looked at."""
        self.ifindex = ifindex
        self._lock = threading.Lock()  # guards _wire and _known
        self._wire = Wire(ns)
        #: Usual rows by the bytes that say what they are: those of the last dump, and those written since.
        self._known: dict[bytes, Row] = {}

    def set(self, rows: Sequence[Row]) -> Failed:
        """Make every row so, in the order given (FDB first, then its neighbour). The refused ones come back."""
        with self._lock:
            failures = self._wire.commit_packed(partial(self._pack, rows), len(rows))
            return self._refused("setting", rows, failures)

    def _pack(self, rows: Sequence[Row], start: int, stop: int, number: int) -> list[bytes]:
        """The messages of these rows; the next dump knows them by the bytes by which they are written."""
        part = rows[start:stop]
        packed = pack_rows(part, self.ifindex, number)
        known = self._known
        for row, message in zip(part, packed, strict=True):
            known[message[_SAYS]] = row
        return packed

    def unset(self, rows: Sequence[Row]) -> Failed:
        """Remove exactly these rows; absent is success. The refused ones come back.

        A row that holds another VTEP or MAC by now is somebody's newer truth and stays. The kernel compares VTEPs
        itself; it deletes neighbours by address alone, so their MACs are asked for first.
        """
        with self._lock:
            held = self._held([row for row in rows if isinstance(row, Neigh)])
            exact = [row for row in rows if isinstance(row, Fdb) or row in held]
            return [(row, said) for row, said in self._commit("unsetting", exact, del_row) if said.code != errno.ENOENT]

    def dump(self) -> Dump:
        """All permanent rows: complete, or KernelRefused. The kernel filters by device (strict checking, 4.20)."""
        device = attribute(NDA_IFINDEX, struct.pack("=I", self.ifindex))
        with self._lock:
            there = self._wire.dump(RTM_GETNEIGH, NDM.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + device)
            forwarded = self._wire.dump(RTM_GETNEIGH, NDM.pack(socket.AF_BRIDGE, 0, 0, 0, 0) + device)
            before, self._known = self._known, {}
            neighs = self._told(there, self._neighbours(there), before)
            fdbs = self._told(forwarded, self._forwarding(forwarded), before)
            return {row for row in neighs if isinstance(row, Neigh)}, {row for row in fdbs if isinstance(row, Fdb)}

    def _told(self, bodies: Sequence[bytes], keys: Sequence[bytes], before: Mapping[bytes, Row]) -> Iterator[Row]:
        """What they say, as `decode_row`; the usual ones by the bytes that say which they are, their keys."""
        known = self._known
        for body, key in zip(bodies, keys, strict=True):
            row = before.get(key) or decode_row(body, self.ifindex)
            if row is not None:
                yield row
                if key:
                    known[key] = row

    def _neighbours(self, bodies: Sequence[bytes]) -> list[bytes]:
        """The keys of those that begin as ours do; none of the others."""
        usual = NDM.pack(socket.AF_INET, self.ifindex, NUD_PERMANENT, 0, _UNICAST)
        return [body[_SAYS_NEIGH] if body[:12] == usual else b"" for body in bodies]

    def _forwarding(self, bodies: Sequence[bytes]) -> list[bytes]:
        """The same for the FDB. What is longer has a remote with something of its own."""
        plain = NDM.pack(socket.AF_BRIDGE, self.ifindex, NUD_NOARP | NUD_PERMANENT, NTF_SELF, _UNICAST)
        begins = {NDM.size + 40: plain, NDM.size + 48: plain + _NETNSID}
        return [
            body[_SAYS_FDB]
            if body[-20:-16] == _AGES and (begin := begins.get(len(body))) and body.startswith(begin)
            else b""
            for body in bodies
        ]

    def everything(self) -> list[SeenRow]:
        """All rows of both tables, also what `dump` leaves out: learned, ageing, multicast, the default."""
        device = attribute(NDA_IFINDEX, struct.pack("=I", self.ifindex))
        families = (socket.AF_UNSPEC, socket.AF_BRIDGE)
        with self._lock:
            bodies = [
                body
                for family in families
                for body in self._wire.dump(RTM_GETNEIGH, NDM.pack(family, 0, 0, 0, 0) + device)
            ]
        return [row for body in bodies if (row := seen_row(body, self.ifindex)) is not None]

    def drop(self, rows: Sequence[Row]) -> Failed:
        """Remove the rows whatever their state and, for a neighbour, whatever its MAC. Absent is success."""
        with self._lock:
            return [(row, said) for row, said in self._commit("removing", rows, del_row) if said.code != errno.ENOENT]

    def close(self) -> None:
        with self._lock:
            self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _commit(self, doing: str, rows: Sequence[Row], request: Callable[[Row, int], Request]) -> Failed:
        return self._refused(doing, rows, self._wire.commit([request(row, self.ifindex) for row in rows]))

    def _refused(self, doing: str, rows: Sequence[Row], failures: Sequence[Failure]) -> Failed:
        attempt = f"{doing} {{}} on interface {self.ifindex}"
        return [(rows[f.place], KernelRefused(attempt.format(rows[f.place]), f.code, f.reason)) for f in failures]

    def _held(self, rows: Iterable[Neigh]) -> _Rows:
        """Those of the rows that the kernel holds as they are."""
        questions = [
            Request(
                RTM_GETNEIGH,
                0,
                NDM.pack(_FAMILY[row.address.version], self.ifindex, 0, 0, 0) + attribute(NDA_DST, row.address.packed),
            )
            for row in rows
        ]
        answers = self._wire.ask(questions) if questions else []
        return {row for answer in answers if (row := decode_row(answer.body, self.ifindex)) is not None}


def bridge_rows(wire: Wire, bridge: int) -> dict[int, set[Mac]]:
    """The static MACs of each port of a bridge, by the port's interface index. Raises KernelRefused."""
    return _static_rows(wire, attribute(NDA_MASTER, struct.pack("=I", bridge)))


def port_rows(wire: Wire, port: int) -> set[Mac]:
    """The static MACs of one port of a bridge. Raises KernelRefused."""
    return _static_rows(wire, attribute(NDA_IFINDEX, struct.pack("=I", port))).get(port, set())


def _static_rows(wire: Wire, which: bytes) -> dict[int, set[Mac]]:
    rows: dict[int, set[Mac]] = {}
    for body in wire.dump(RTM_GETNEIGH, NDM.pack(socket.AF_BRIDGE, 0, 0, 0, 0) + which):
        # A VXLAN port's own rows (SELF) come along in the same dump, ten thousand of them perhaps.
        if len(body) < NDM.size or body[_FLAGS] & NTF_SELF:
            continue
        _family, port, state, _flags, _type = NDM.unpack_from(body)
        if not state & NUD_NOARP:
            continue
        mac = _mac(attributes(body, NDM.size).get(NDA_LLADDR))
        if mac is not None:
            rows.setdefault(port, set()).add(mac)
    return rows


class MissSocket(Listener):
    """Hears the kernel's questions in one namespace. For one thread, which selects on `fileno`."""

    heard = "misses"

    def _join(self, sock: socket.socket) -> None:
        _only_questions(sock)
        sock.bind((0, 1 << RTNLGRP_NEIGH - 1))

    def read(self) -> list[Miss]:
        """The misses that have come, without waiting. Raises Overrun as `pieces` does."""
        return [miss for raw in self.pieces() for miss in decode_misses(raw)]


def _only_questions(sock: socket.socket) -> None:
    """Let the kernel drop all but RTM_GETNEIGH: each row we write ourselves is announced to the same group.

    Classic BPF (linux/filter.h): load the half word at 4 (nlmsg_type), return all of it or nothing. BPF loads in
    network order while netlink writes in the host's, hence htons.
    """
    steps = ((0x28, 0, 0, 4), (0x15, 0, 1, socket.htons(RTM_GETNEIGH)), (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0))
    attach_filter(sock, steps)
