"""Messages of netlink as the kernel room reads them: misses, changes, refusals; dumps of links, addresses, routes,
rows, queues and rules. Each reader is given the same bytes, for it is he who says what they are.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from myoverlay.errors import MyoverlayError
from myoverlay.kernel import (
    anatomy,
    bound,
    changes,
    egress,
    fence,
    linkforms,
    neigh,
    neightable,
    nft,
    observe,
    path,
    probe,
    rtnetlink,
    ruleset,
    traffic,
    underlay,
)
from myoverlay.kernel.channel import Channel
from myoverlay.kernel.linkforms import Resolving, form_of, observed
from myoverlay.kernel.rtnetlink import HEADER, Request, Wire, attribute, replies
from myoverlay.values import Address, Mac, Subnet
from tests.fuzz.tape import Tape, bent, packets
from tests.fuzz.target import right

_CORPUS = packets("netlink")
#: Readers of dumps that an input is given; each tape begins at another.
AT_ONCE = 6
#: The interface that rows are of, in the corpus.
DEVICE = 7
_NAMES = {number: f"eth{number}" for number in range(1, 12)}
_TABLE = nft.Table(1, "t")


class Given(NamedTuple):
    """Messages, and the first of the readers that are given them."""

    raw: bytes
    first: int


class Paper:
    """A wire whose every answer is the same messages."""

    def __init__(self, bodies: list[bytes]) -> None:
        self.bodies = bodies

    def dump(self, _kind: int, _body: bytes) -> list[bytes]:
        return self.bodies

    def one(self, _request: Request, _attempt: str) -> rtnetlink.Reply:
        return rtnetlink.Reply(16, 0, 1, self.bodies[0] if self.bodies else b"")

    def ask(self, _requests: Sequence[Request]) -> list[rtnetlink.Reply]:
        return [rtnetlink.Reply(16, 0, 1, body) for body in self.bodies]

    def index_of(self, name: str) -> int | None:
        return 2 if name == "eth0" else None

    def name_of(self, index: int) -> str | None:
        return "eth0" if index == 2 else None


class Socket:
    """A netlink socket on which these bytes come, then nothing within the time."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def send(self, sent: bytes) -> int:
        return len(sent)

    def recv(self, size: int) -> bytes:
        raw, self.raw = self.raw[:size], b""
        if not raw:
            raise TimeoutError
        return raw


class Target:
    """Nothing is kept but what the library caches."""

    LIMITS: dict[str, int] = {}

    def make(self, tape: Tape) -> Given:
        raw = b"".join(tape.pick(_CORPUS) for _ in range(1 + tape.below(3)))
        raw = bent(tape, raw, _CORPUS, 1 << 14)
        if tape.below(2):
            # Whole again: what it says of its length is true, so that its inside is looked at.
            raw = raw.ljust(16, b"\0")
            raw = len(raw).to_bytes(4, "little") + raw[4:]
        return Given(raw, tape.below(len(_READERS)))

    def check(self, given: Given) -> None:
        raw = given.raw
        told = list(replies(raw))
        bodies = [reply.body for reply in told][:8]
        right(sum(16 + len(reply.body) for reply in told) <= len(raw), "more is read than came")
        self._misses(raw)
        self._dissected(raw)
        for reply in told[:8]:
            self._message(reply)
        wire: Any = Paper(bodies)
        for read in (*_READERS, *_READERS)[given.first : given.first + AT_ONCE]:
            try:
                read(wire)
            except MyoverlayError:
                continue
        for wired in _WIRED:
            real: Any = object.__new__(Wire)
            real._socket, real._sequence = Socket(raw), 0
            try:
                wired(real)
            except MyoverlayError:
                continue

    def _misses(self, raw: bytes) -> None:
        for miss in neigh.decode_misses(raw):
            body = neigh.NDM.pack(socket.AF_INET, miss.ifindex, 0, 0, 0)
            body += attribute(neigh.NDA_DST, miss.address.packed) if miss.address is not None else b""
            body += attribute(neigh.NDA_LLADDR, miss.mac.packed) if miss.mac is not None else b""
            again = HEADER.pack(16 + len(body), neigh.RTM_GETNEIGH, 0, 0, 0) + body
            right(neigh.decode_misses(again) == [miss], f"{miss} is another when it is asked again")
            right(miss.address is None or Address(str(miss.address)) == miss.address, f"{miss.address} is no address")
            right(miss.mac is None or Mac(str(miss.mac)) == miss.mac, f"{miss.mac} is no MAC")

    def _dissected(self, raw: bytes) -> None:
        for message in anatomy.dissect(raw):
            right(message.offset + message.size <= len(raw), "a message ends beyond the end")
            for _part, _depth, field in anatomy.walk(message):
                right(field.offset + field.size <= len(raw), f"{field.name} ends beyond the end")
            anatomy.plain(message, raw)
            anatomy.is_bridge(message)
            message.text("IFLA_LINKINFO", "IFLA_INFO_KIND")

    def _message(self, reply: rtnetlink.Reply) -> None:
        rtnetlink.verdict(reply)
        body = reply.body
        row = neigh.decode_row(body, DEVICE)
        if row is not None:
            right(
                neigh.decode_row(neigh.new_row(row, DEVICE).body, DEVICE) == row,
                f"{row} is another when it is read again",
            )
        neigh.seen_row(body, DEVICE)
        changes.decode(reply, DEVICE)
        link = linkforms.decode_link(body)
        if link is not None:
            places = ((Address("10.5.0.1"), 24), (Address("fd00:5::1"), 64))
            resolving = (Resolving(Address("169.254.77.53"), Subnet("10.5.0.0/24")),)
            value = observed(link, link, places, frozenset({Mac("02:42:0a:05:00:07")}), resolving).value
            if value is not None:
                form = form_of(value)
                linkforms.must_be_made_anew(form, link)
                linkforms.corrections(form, link, link.master)
        for port in (4789, 1):
            ruleset.drops_port(rtnetlink.attributes(body, nft.HEAD.size).get(4, body), port)
        traffic.decode(body, "eth0", "egress", "egress")

    def show(self, given: Given) -> str:
        return f"{len(given.raw)} bytes: {given.raw[:300].hex()}, for {AT_ONCE} readers from number {given.first} on"

    def left(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        """Nothing is open."""


def _door(wire: Any) -> nft.Door:
    door = object.__new__(nft.Door)
    door._wire = wire
    return door


def _channel(wire: Any) -> Channel:
    channel = object.__new__(Channel)
    channel.wire, channel.ns = wire, SimpleNamespace(fd=3)  # type: ignore[assignment]
    return channel


def _ruleset(wire: Any) -> None:
    before, ruleset.Wire = ruleset.Wire, lambda *_: SimpleNamespace(dump=wire.dump, close=lambda: None)  # type: ignore[assignment, misc]
    try:
        ruleset.read(None, (4789, 1))  # type: ignore[arg-type]
    finally:
        ruleset.Wire = before  # type: ignore[misc]


def _look(kind: type, wire: Any) -> Any:
    table: Any = kind(lambda: None)
    table._open = lambda: _door(wire)
    table._form, table._generation = table._shape(_door(wire)), None
    return table.look()


def _bound(wire: Any) -> None:
    for one in _look(bound.BoundTable, wire) or ():
        right(Mac(str(one.mac)) == one.mac, f"{one.mac} is no MAC")


_READERS: tuple[Callable[[Any], Any], ...] = (
    lambda wire: neightable.decode(wire.bodies),
    lambda wire: underlay.places_of(wire, (0, 253)),
    underlay.routes,
    underlay.leads,
    lambda wire: underlay.route_mtu(wire, list(observe.links(wire).values()), Address("10.5.0.9")),
    lambda wire: underlay.route_out(wire, Address("10.5.0.9")),
    lambda wire: underlay.choose(wire, list(observe.links(wire).values()), ""),
    lambda wire: neigh.bridge_rows(wire, 2),
    lambda wire: neigh.port_rows(wire, 9),
    lambda wire: observe.bridged_macs(wire, 2, 3),
    lambda wire: observe.link(wire, 9),
    lambda wire: traffic.read(wire, _NAMES),
    lambda wire: path.route_to(wire, Address("10.5.0.9"), Address("10.5.0.1")),
    lambda wire: path._neighbour(wire, Address("10.5.0.9"), DEVICE),
    lambda wire: path._forwarding(wire, Mac("02:42:0a:05:00:09"), DEVICE),
    lambda wire: path._flags(wire, 9),
    lambda wire: probe._has_carrier(wire, 9),
    lambda wire: _channel(wire).all(),
    lambda wire: _channel(wire).nsid(SimpleNamespace(fd=4)),  # type: ignore[arg-type]
    lambda wire: _door(wire).generation(),
    lambda wire: _door(wire).rules(_TABLE),
    lambda wire: _door(wire).chains(_TABLE),
    lambda wire: _door(wire).counters(nft.Table(1, "myoverlay")),
    lambda wire: _look(fence.FenceTable, wire),
    _bound,
    lambda wire: _look(egress.CrossingTable, wire),
    lambda wire: egress._defaults(_channel(wire)),
    _ruleset,
)
_WIRED: tuple[Callable[[Any], Any], ...] = (
    lambda wire: wire._dump(18, b""),
    lambda wire: wire.one(Request(18, 0, b""), "asking"),
    lambda wire: wire.commit([Request(28, 0, b""), Request(28, 0, b"")]),
    lambda wire: wire.transact([Request(16, 0, b""), Request(2563, 0, b""), Request(17, 0, b"")], "changing"),
)
