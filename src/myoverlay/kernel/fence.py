"""The guard's table in the host's namespace: VXLAN of our (port, VNI) pairs comes only from live VTEPs of that overlay.

    prerouting, before connection tracking: what a live VTEP sends to this host's by the interface which that one lies
    on passes after one look-up, and is not tracked: a VXLAN flow has no answers, and would fill the table of
    connections. All else is asked one by one: a datagram to one of the ports whose VNI is ours must go
    from a live VTEP to this host's, by an interface that VTEPs lie on or that leads back to its source; what merely
    passes this host on its way between others is no business of ours unless a container sent it. output: no process
    sends such a datagram; the kernel's own are not tracked.

The VNI is read where VXLAN has it, behind the UDP header. A datagram, or a first fragment, that is too short to have
one is dropped: the rest of it may follow in fragments, which nobody looks into. The kernel's own VXLAN has no user and
passes the output rule; so does a socket of another namespace, as the heartbeat's.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache

from myoverlay.fence import At, Dropped, Fence, Pair, Way
from myoverlay.kernel import nft
from myoverlay.kernel.kept import Kept
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.rtnetlink import Request
from myoverlay.values import Address

TABLE = nft.Table(nft.INET, "myoverlay")
#: Before connection tracking and the raw tables (-300), behind its reassembly (-400).
PRIORITY = -310
_UDP = bytes((socket.IPPROTO_UDP,))
_PORT = (nft.TRANSPORT, 2, 2)
_VNI = (nft.TRANSPORT, 12, 3)
#: With the byte behind it, which a sender of ours leaves 0: four bytes are read quicker than three.
_VNI_WORD = (nft.TRANSPORT, 12, 4)
#: Family, where source and destination are in the IP header, and how long an address is.
_V4, _V6 = (2, 12, 16, 4), (10, 8, 24, 16)
_FAMILIES = ((_V4, 4), (_V6, 6))
_KINDS = ("bridge", "veth")
#: Route type "local" (RTN_LOCAL).
_LOCAL = struct.pack("=I", 2)
#: An interface's index; above those of the kernel, which are positive and have 32 bits with their sign.
_INDEX, NOWHERE = struct.Struct("=I"), 1 << 31


def _shown(*fields: bytes) -> bytes:
    """User data of a set of concatenated fields, by which the program `nft` prints them (libnftnl, NFTNL_UDATA_SET)."""
    inner = b"".join(bytes((place, len(field))) + field for place, field in enumerate(fields))
    said = _user(0, 13) + bytes((1, len(inner))) + inner
    return _user(0, 0) + bytes((3, len(said))) + said


def _user(kind: int, value: int) -> bytes:
    return bytes((kind, 4)) + struct.pack("=I", value)


def _field(protocol: int, field: int) -> bytes:
    inner = _user(0, protocol) + _user(1, field)
    return _user(0, 7) + bytes((1, len(inner))) + inner


_RAW = _user(0, 0) + _user(1, 0) + _user(2, 3) + _user(3, 96) + _user(4, 24)
_SHOWN_VNI = _user(0, 7) + bytes((1, len(_RAW))) + _RAW
_SHOWN_PORT, _SHOWN_V4, _SHOWN_V6 = _field(6, 2), (_field(12, 11), _field(12, 12)), (_field(13, 8), _field(13, 9))
_PORT_AND_VNI, _SHOWN_PAIR = 13 << 6 | 4, (_SHOWN_PORT, _SHOWN_VNI)
_SETS = {
    "ports": nft.Form(13, 2, _user(0, 2)),
    "pairs": nft.Form(_PORT_AND_VNI, 8, _shown(*_SHOWN_PAIR)),
    "doors": nft.Form(41, 16, _user(0, 1)),
    "own4": nft.Form((7 << 6 | 13) << 6 | 4, 12, _shown(_SHOWN_V4[1], *_SHOWN_PAIR)),
    "own6": nft.Form((8 << 6 | 13) << 6 | 4, 24, _shown(_SHOWN_V6[1], *_SHOWN_PAIR)),
    # Of five fields nft 1.0 goes by their types alone, and breaks on one without a length: it shows VNI 42 as 0.0.42.0.
    "ways4": nft.Form((13 << 6 | 7) << 18 | (7 << 6 | 7) << 6 | 20, 20, b""),
    "ways6": nft.Form((13 << 6 | 7) << 18 | (8 << 6 | 8) << 6 | 20, 44, b""),
    "live4": nft.Form((7 << 6 | 13) << 6 | 4, 12, _shown(_SHOWN_V4[0], *_SHOWN_PAIR)),
    "live6": nft.Form((8 << 6 | 13) << 6 | 4, 24, _shown(_SHOWN_V6[0], *_SHOWN_PAIR)),
}


@lru_cache(maxsize=1024)
def _pair(pair: Pair) -> bytes:
    return pair.port.to_bytes(2, "big") + b"\0\0" + pair.vni.to_bytes(3, "big") + b"\0"


def _keys(fence: Fence, indexes: Mapping[str, int]) -> Iterator[tuple[str, list[bytes]]]:
    """What is in each set, as the kernel has it."""
    yield "ports", [port.to_bytes(2, "big") for port in fence.ports]
    yield "pairs", [_pair(pair) for pair in fence.pairs]
    yield "doors", [nft.name(name) for name in fence.doors]
    for kind, ats in (("own", fence.own), ("live", fence.live)):
        keys = [vtep.packed + _pair(pair) for pair, vtep in ats]
        yield f"{kind}4", [key for key in keys if len(key) == 12]
        yield f"{kind}6", [key for key in keys if len(key) == 24]
    ways = [
        _pair(pair) + source.packed + vtep.packed + _INDEX.pack(indexes[door])
        for pair, source, vtep, door in fence.ways
    ]
    yield "ways4", [key for key in ways if len(key) == 20]
    yield "ways6", [key for key in ways if len(key) == 44]


def _is_ours(which: str, register: int) -> tuple[bytes, ...]:
    """The datagram's address (already loaded to register 8 on), port and VNI are in this set."""
    return (nft.payload(*_PORT, register), nft.payload(*_VNI, register + 1), nft.lookup(which))


def _address(family: tuple[int, int, int, int], source: bool, which: str) -> tuple[bytes, ...]:
    _number, here, there, length = family
    words = length // 4
    return (nft.payload(nft.NETWORK, here if source else there, length), *_is_ours(which, nft.R32 + words))


def _straight(family: tuple[int, int, int, int], version: int) -> tuple[bytes, ...]:
    """From a live VTEP to this host's, by its interface: one look-up. What was told apart here is not tracked."""
    number, here, there, length = family
    words = length // 4
    source = nft.R32 + 2
    return (
        nft.meta(nft.NFPROTO),
        nft.compare(bytes((number,))),
        nft.payload(*_PORT, nft.R32),
        nft.payload(*_VNI_WORD, nft.R32 + 1),
        nft.payload(nft.NETWORK, here, length, source),
        nft.payload(nft.NETWORK, there, length, source + words),
        nft.meta(nft.IIF, source + 2 * words),
        nft.lookup(f"ways{version}", register=nft.R32),
        nft.untracked(),
        nft.verdict(nft.ACCEPT),
    )


def _rules() -> Iterator[tuple[str, tuple[bytes, ...]]]:
    udp = (nft.meta(nft.L4PROTO), nft.compare(_UDP))
    at_port = (*udp, nft.payload(*_PORT), nft.lookup("ports"))
    others = (*udp, nft.payload(*_PORT), nft.payload(*_VNI, nft.R32 + 1), nft.lookup("pairs", inverted=True))
    local = (nft.destination_type(), nft.compare(_LOCAL))
    kinds = [(nft.meta(nft.IIFKIND), nft.compare(nft.name(kind))) for kind in _KINDS]
    known = {
        version: (
            nft.meta(nft.NFPROTO),
            nft.compare(bytes((family[0],))),
            *udp,
            *_address(family, True, f"live{version}"),
        )
        for family, version in _FAMILIES
    }
    yield "arrives", (nft.meta(nft.L4PROTO), nft.compare(_UDP, nft.UNEQUAL), nft.verdict(nft.ACCEPT))
    for family, version in _FAMILIES:
        yield "arrives", _straight(family, version)
    yield "arrives", (*at_port, nft.verdict(nft.GOTO, "vxlan"))
    for family, version in _FAMILIES:
        yield "vxlan", (*known[version], *_address(family, False, f"own{version}"), nft.verdict(nft.GOTO, "door"))
    yield "vxlan", (*others, nft.verdict(nft.ACCEPT))
    for _, version in _FAMILIES:
        passing = (nft.destination_type(), nft.compare(_LOCAL, nft.UNEQUAL))
        yield "vxlan", (*known[version], *passing, nft.verdict(nft.GOTO, "door"))
    for away in (local, *kinds):
        yield "vxlan", (*away, nft.count("unknown"), nft.verdict(nft.DROP))
    yield "door", (nft.meta(nft.IIFNAME), nft.lookup("doors"), nft.verdict(nft.ACCEPT))
    yield "door", (nft.route_back(), nft.compare(struct.pack("=I", 1)), nft.verdict(nft.ACCEPT))
    for away in kinds:
        yield "door", (*away, nft.count("door"), nft.verdict(nft.DROP))
    process = (nft.meta(nft.SKUID), nft.network_order(), nft.compare(bytes(4), nft.AT_LEAST))
    yield "leaves", (*process, *at_port, nft.verdict(nft.GOTO, "mine"))
    yield (
        "leaves",
        (*udp, nft.payload(*_PORT), nft.payload(*_VNI_WORD, nft.R32 + 1), nft.lookup("pairs"), nft.untracked()),
    )
    yield "mine", (*others, nft.verdict(nft.ACCEPT))
    yield "mine", (nft.count("local"), nft.verdict(nft.DROP))


class FenceTable(Kept[Fence]):
    """The table as it is in one namespace. Safe from several threads."""

    table = TABLE
    sets = _SETS
    counters = Dropped._fields
    chains = ("vxlan", "door", "mine")
    hooks = (("arrives", nft.PREROUTING, PRIORITY), ("leaves", nft.OUTPUT, PRIORITY))
    rules = tuple(_rules())

    def dropped(self) -> Dropped:
        """Raises KernelRefused."""
        return Dropped(**self.counts())

    def __init__(self, home: Callable[[], Namespace]) -> None:
        super().__init__(home)
        #: The indexes by which the keys know the interfaces; guarded as the door is.
        self._indexes: dict[str, int] = {}

    def _keys(self, door: nft.Door, held: Fence) -> Iterator[tuple[str, list[bytes]]]:
        for name in {way.door for way in held.ways} - self._indexes.keys():
            # What is not there gets a number of its own that is none: nothing comes by it.
            self._indexes[name] = door.index_of(name) or NOWHERE + len(self._indexes)
        return _keys(held, self._indexes)

    def _laid(self, door: nft.Door, value: Fence) -> list[Request]:
        self._indexes.clear()
        return super()._laid(door, value)

    def _still_holds(self, door: nft.Door) -> bool:
        """Has every interface the index by which the keys know it? One that was made anew has another."""
        return all((door.index_of(name) or NOWHERE) == min(index, NOWHERE) for name, index in self._indexes.items())

    def _doors(self, door: nft.Door, indexes: Iterable[int]) -> dict[int, str]:
        """The interfaces' names, as far as there are such."""
        known = {index: name for name, index in self._indexes.items()}
        for index in indexes:
            if index not in known and (name := door.name_of(index)) is not None:
                known[index] = name
                self._indexes.setdefault(name, index)
        return known

    def _read(self, door: nft.Door) -> Fence:
        keys = {name: door.keys(TABLE, name, form.length) for name, form in _SETS.items()}
        ats = {
            kind: frozenset(
                At(_read_pair(key[-8:]), Address.unpack(key[:-8])) for key in keys[f"{kind}4"] + keys[f"{kind}6"]
            )
            for kind in ("own", "live")
        }
        ways = keys["ways4"] + keys["ways6"]
        doors = self._doors(door, {_index(key) for key in ways})
        return Fence(
            ports=frozenset(int.from_bytes(key[:2], "big") for key in keys["ports"]),
            pairs=frozenset(map(_read_pair, keys["pairs"])),
            doors=frozenset(nft.word(key) for key in keys["doors"]),
            own=ats["own"],
            live=ats["live"],
            ways=frozenset(
                Way(_read_pair(key[:8]), *_both(key[8:-4]), doors[_index(key)]) for key in ways if _index(key) in doors
            ),
        )


def _both(key: bytes) -> tuple[Address, Address]:
    """Source and destination."""
    half = len(key) // 2
    return Address.unpack(key[:half]), Address.unpack(key[half:])


def _index(key: bytes) -> int:
    return int(_INDEX.unpack_from(key, len(key) - 4)[0])


@lru_cache(maxsize=1024)
def _read_pair(key: bytes) -> Pair:
    return Pair(int.from_bytes(key[:2], "big"), int.from_bytes(key[4:7], "big"))
