"""nf_tables by `struct`: transactions of tables, sets, chains and rules, all of one or nothing, and what is read back.

No fork: one transaction takes a quarter of a millisecond where the program `nft` takes ten, and none has to be there.
Sources: include/uapi/linux/netfilter/{nf_tables,nfnetlink}.h, net/netfilter/nfnetlink.c (nfnetlink_rcv_batch).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from myoverlay.errors import KernelRefused
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.rtnetlink import ATTRIBUTE, NLM_F_CREATE, Request, Wire, attribute, attributes, members

NETLINK_NETFILTER = 12
SUBSYSTEM = 10 << 8
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN, DELCHAIN, NEWRULE, GETRULE, DELRULE = range(9)
NEWSET, GETSET, DELSET, NEWELEMENT, GETELEMENT, DELELEMENT, NEWGEN, GETGEN = range(9, 17)
NEWOBJECT, GETOBJECT = 18, 19
NLM_F_APPEND = 0x800
#: struct nfgenmsg: family, version, resource.
HEAD = struct.Struct("!BBH")
INET, IPV4, BRIDGE = 1, 2, 7
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
#: Payloads' bases, comparisons, meta keys, and what fib tells.
LINK, NETWORK, TRANSPORT = 0, 1, 2
EQUAL, UNEQUAL, AT_LEAST = 0, 1, 5
IIF, IIFNAME, OIFNAME, SKUID, NFPROTO, L4PROTO, PROTOCOL, IIFKIND = 4, 6, 7, 10, 15, 16, 1, 26
ROUTE_BACK, LOCAL = 1, 3
DROP, ACCEPT, JUMP, GOTO, RETURN = 0, 1, -3, -4, -5
#: Registers of 16 bytes are 1 to 4; those of 4 bytes begin at 8, so that 8 and 1 are the same place.
R1, R32 = 1, 8
#: Bytes of elements in one message: an attribute's length has 16 bits.
_ELEMENTS = 60_000
_NESTED = 0x8000


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value & 0xFFFFFFFF))


def nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(parts))


# -- expressions ------------------------------------------------------------------------------------------------------


def expression(name: str, *data: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *data))


def meta(key: int, register: int = R1) -> bytes:
    """Load what is known of the packet beside its bytes. A rule ends where there is no such thing."""
    return expression("meta", number(1, register), number(2, key))


def payload(base: int, offset: int, length: int, register: int = R1) -> bytes:
    """Load bytes of the packet; a rule ends where it has not got them."""
    return expression("payload", number(1, register), number(2, base), number(3, offset), number(4, length))


def compare(value: bytes, operation: int = EQUAL, register: int = R1) -> bytes:
    return expression("cmp", number(1, register), number(2, operation), nested(3, attribute(1, value)))


def lookup(name: str, inverted: bool = False, register: int = R1) -> bytes:
    return expression("lookup", text(1, name), number(2, register), *([number(5, 1)] if inverted else []))


def network_order(register: int = R1) -> bytes:
    return expression("byteorder", number(1, register), number(2, register), number(3, 1), number(4, 4), number(5, 4))


def route_back() -> bytes:
    """1 where the packet's source is reached by the interface it came in by (`fib saddr . iif oif exists`)."""
    return expression("fib", number(1, R1), number(2, ROUTE_BACK), number(3, 1 | 8 | 32))


def destination_type() -> bytes:
    """The route type of the packet's destination (`fib daddr type`); 2 is local."""
    return expression("fib", number(1, R1), number(2, LOCAL), number(3, 2))


def count(name: str) -> bytes:
    return expression("objref", number(1, 1), text(2, name))


def untracked() -> bytes:
    """Connection tracking, which comes later, lets the packet pass as it is."""
    return expression("notrack")


def verdict(code: int, chain: str = "") -> bytes:
    said = nested(2, number(1, code), *([text(2, chain)] if chain else []))
    return expression("immediate", number(1, 0), nested(2, said))


# -- messages ---------------------------------------------------------------------------------------------------------


class Form(NamedTuple):
    """What a set's keys are: nft's number of their type, their length in bytes, how the program `nft` shows them."""

    type: int
    length: int
    shown: bytes


class Table:
    """The messages about one table."""

    def __init__(self, family: int, name: str) -> None:
        self.family, self.name = family, name

    def message(self, kind: int, body: bytes, flags: int = 0) -> Request:
        return Request(SUBSYSTEM | kind, flags, HEAD.pack(self.family, 0, 0) + body)

    def create(self) -> Request:
        return self.message(NEWTABLE, text(1, self.name), NLM_F_CREATE)

    def delete(self) -> Request:
        return self.message(DELTABLE, text(1, self.name))

    def chain(self, name: str) -> Request:
        return self.message(NEWCHAIN, text(1, self.name) + text(3, name), NLM_F_CREATE)

    def base_chain(self, name: str, hook: int, priority: int, kind: str = "filter") -> Request:
        """A chain that the kernel calls; what it does not decide passes."""
        where = nested(4, number(1, hook), number(2, priority))
        body = text(1, self.name) + text(3, name) + where + number(5, ACCEPT) + text(7, kind)
        return self.message(NEWCHAIN, body, NLM_F_CREATE)

    def rule(self, chain: str, *expressions: bytes) -> Request:
        body = text(1, self.name) + text(2, chain) + nested(4, *expressions)
        return self.message(NEWRULE, body, NLM_F_CREATE | NLM_F_APPEND)

    def counter(self, name: str, packets: int = 0) -> Request:
        data = nested(4, attribute(1, struct.pack("!Q", 0)), attribute(2, struct.pack("!Q", packets)))
        return self.message(NEWOBJECT, text(1, self.name) + text(2, name) + number(3, 1) + data, NLM_F_CREATE)

    def set(self, name: str, number_of_set: int, form: Form) -> Request:
        body = text(1, self.name) + text(2, name) + number(3, 0) + number(4, form.type) + number(5, form.length)
        shown = attribute(13, form.shown) if form.shown else b""
        return self.message(NEWSET, body + number(10, number_of_set) + shown, NLM_F_CREATE)

    def elements(self, kind: int, name: str, keys: Sequence[bytes]) -> Iterator[Request]:
        """Add (NEWELEMENT) or delete (DELELEMENT) elements, as many to a message as it takes; all keys are as long."""
        if not keys:
            return
        # Three attributes, each around the next: an element, its key, the key's value.
        length, names = len(keys[0]), text(1, self.name) + text(2, name)
        head = b"".join(ATTRIBUTE.pack(length + more, 1 | nest) for more, nest in ((12, _NESTED), (8, _NESTED), (4, 0)))
        padding = bytes(-length & 3)
        flags, many = NLM_F_CREATE if kind == NEWELEMENT else 0, _ELEMENTS // (16 + length)
        for start in range(0, len(keys), many):
            listed = head + (padding + head).join(keys[start : start + many]) + padding
            yield self.message(kind, names + attribute(3 | _NESTED, listed), flags)


class Door:
    """nf_tables of one namespace. For one thread at a time: its owner locks."""

    def __init__(self, ns: Namespace) -> None:
        """Raises KernelRefused where the kernel has no such netlink."""
        self._wire = Wire(ns, NETLINK_NETFILTER)

    def close(self) -> None:
        self._wire.close()

    def commit(self, requests: Sequence[Request], attempt: str) -> None:
        """All of it at once, or nothing. Raises KernelRefused with the first reason."""
        begin = Request(BATCH_BEGIN, 0, HEAD.pack(socket.AF_UNSPEC, 0, 10))
        end = Request(BATCH_END, 0, HEAD.pack(socket.AF_UNSPEC, 0, 10))
        self._wire.transact([begin, *requests, end], attempt)

    def generation(self) -> int:
        """A number that each change of any rule in the namespace makes another one."""
        answer = self._wire.one(Request(SUBSYSTEM | GETGEN, 0, HEAD.pack(0, 0, 0)), "asking for the rules' generation")
        return int.from_bytes(attributes(answer.body, HEAD.size).get(1, b""), "big")

    def index_of(self, name: str) -> int | None:
        """The index of a link of the namespace; None where there is none of that name."""
        return self._wire.index_of(name)

    def name_of(self, index: int) -> str | None:
        """The name of the link with an index; None where there is none."""
        return self._wire.name_of(index)

    def rules(self, table: Table) -> list[tuple[str, bytes]]:
        """The rules' chains and expressions, in their order; none where there is no such table."""
        bodies = self._dump(table, GETRULE, text(1, table.name))
        found = [attributes(body, HEAD.size) for body in bodies if body[0] == table.family]
        return [(word(one.get(2)), one.get(4, b"")) for one in found if word(one.get(1)) == table.name]

    def chains(self, table: Table) -> dict[str, tuple[bytes, bytes]]:
        """Each chain's hook and policy, as the kernel tells them; none where there is no such table."""
        found = [attributes(body, HEAD.size) for body in self._dump(table, GETCHAIN, b"") if body[0] == table.family]
        here = [one for one in found if word(one.get(1)) == table.name]
        return {word(one.get(3)): (one.get(4, b""), one.get(5, b"")) for one in here}

    def keys(self, table: Table, name: str, length: int) -> list[bytes]:
        """The keys of a set, as far as they have that length; none where there is no such set."""
        keys: list[bytes] = []
        for body in self._dump(table, GETELEMENT, text(1, table.name) + text(2, name)):
            for raw in members(attributes(body, HEAD.size).get(3, b"")):
                key = attributes(attributes(raw, 0).get(1, b""), 0).get(1)
                if key is not None and len(key) == length:
                    keys.append(key)
        return keys

    def counters(self, table: Table) -> dict[str, int]:
        """Packets by counter; none where there is no such table."""
        found: dict[str, int] = {}
        for body in self._dump(table, GETOBJECT, text(1, table.name)):
            one = attributes(body, HEAD.size)
            if body[0] == table.family and word(one.get(1)) == table.name:
                found[word(one.get(2))] = int.from_bytes(attributes(one.get(4, b""), 0).get(2, b""), "big")
        return found

    def is_there(self, table: Table) -> bool:
        try:
            self._wire.one(table.message(GETTABLE, text(1, table.name)), f"looking for table {table.name}")
        except KernelRefused as said:
            if said.code != errno.ENOENT:
                raise
            return False
        return True

    def _dump(self, table: Table, kind: int, which: bytes) -> list[bytes]:
        try:
            bodies = self._wire.dump(SUBSYSTEM | kind, HEAD.pack(table.family, 0, 0) + which)
        except KernelRefused as said:
            if said.code != errno.ENOENT:
                raise
            return []
        return [body for body in bodies if len(body) >= HEAD.size]


def name(text: str) -> bytes:
    """A name as keys and comparisons have it; `word` reads one."""
    return text.encode().ljust(16, b"\0")


def word(raw: bytes | None) -> str:
    return (raw or b"").split(b"\0", 1)[0].decode("utf-8", "replace")
