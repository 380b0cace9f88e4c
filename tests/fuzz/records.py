"""Whatever is read from Consul: all kinds of keys with whatever value, and what Consul itself might answer.

One key of the tree is bent, by its name or its value, and each reader of its kind reads. What it must find is there all
the time under keys beside it: a bad key stops nobody. Answers of Consul's are met at the store.
"""

from __future__ import annotations

import email
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from myoverlay.errors import Unavailable, Unreadable
from myoverlay.networks import Answer, HeldNetwork, NetworkPlan, Question
from myoverlay.outlook import Look, Outlook
from myoverlay.path import PathAnswer, PathQuestion, Seek, Sought
from myoverlay.plan.believe import believed
from myoverlay.store import Check, Delete, Entry, Keys, Listing, Put
from myoverlay.store import wire as wire_module
from myoverlay.store.allowed import asked as rights
from myoverlay.store.catalogue import Catalogue
from myoverlay.store.consul import ConsulStore
from myoverlay.store.hostlists import reader_after
from myoverlay.store.index import Index
from myoverlay.store.networks import NetworkRecords
from myoverlay.store.outlooks import OutlookRecords
from myoverlay.store.outsiders import Outsider
from myoverlay.store.paths import PathRecords, SeekRecords
from myoverlay.store.pooled import MARK
from myoverlay.store.presence import Incarnation, Presence
from myoverlay.store.records import Member, Records, VniHolder
from myoverlay.store.rings import Ring
from myoverlay.store.typed import Held
from myoverlay.values import (
    Address,
    Alive,
    Definition,
    HostList,
    Lease,
    Mac,
    OverlayName,
    Pool,
    Subnet,
    decoder,
    encode,
)
from tests.fuzz.tape import Tape, bent, bent_json, lines
from tests.fuzz.target import right
from tests.pure.kit import ANN, BOB, DEMO, EVE, SUBNET, definition

PREFIX = "myoverlay"
#: Flags that a key may have: none, ours, and all there are.
_FLAGS = (0, MARK, (1 << 64) - 1)
_QUESTION = "c" * 32
_NAMES = {b"AAAA!": ANN.encode(), b"BBBB!": BOB.encode(), b"EEEE!": EVE.encode(), b"QQQQ!": _QUESTION.encode()}


def _whole(line: bytes) -> bytes:
    for name, known in _NAMES.items():
        line = line.replace(name, known)
    return line


_LINES = [tuple(_whole(line).split(b"\t", 2)) for line in lines("records")]
_VALUES = [value for _, _, value in _LINES]
_KEYS = [key for kind, key, _ in _LINES if kind != b"answer"]
OF = definition(records="demo-1", gateway=Address("10.5.0.1"))
WEB = OverlayName("web")
ADDRESS, MAC = Address("10.5.0.9"), Mac("02:42:0a:05:00:09")


class Given(NamedTuple):
    """A key of a kind with its value; or, of kind `answer`, status and headers, a body, and whom it meets."""

    kind: str
    key: str
    value: bytes
    flags: int
    asked: int = 0


class Paper:
    """A store on paper: what is always there, and one key more."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def get(self, key: str, **_: Any) -> Entry | None:
        return self.entries.get(key)

    def get_many(self, keys: Sequence[str], **_: Any) -> dict[str, Entry]:
        return {key: self.entries[key] for key in keys if key in self.entries}

    def list(self, prefix: str, **_: Any) -> Listing:
        return Listing(tuple(entry for key, entry in self.entries.items() if key.startswith(prefix)), 9)

    def keys(self, prefix: str, **_: Any) -> Keys:
        return Keys(tuple(key for key in self.entries if key.startswith(prefix)), 9)

    def wait(self, prefix: str, index: int, **_: Any) -> Listing:
        return self.list(prefix)

    def wait_keys(self, prefix: str, index: int, **_: Any) -> Keys:
        return self.keys(prefix)


class Line:
    """In place of connections to Consul: one answer, to every question."""

    def __init__(self, pool: wire_module.Pool) -> None:
        self.place = pool.place
        self.answer = wire_module.Answer(500, email.message_from_string(""), b"")

    def ask(self, *_: Any, **__: Any) -> wire_module.Answer:
        return self.answer

    def close(self) -> None:
        """Nothing is open."""


Reader = Callable[["Target"], Any]
#: The class of each kind's values, who reads it, and what is always there for him to find.
KINDS: dict[str, tuple[type | None, tuple[Reader, ...], Reader]] = {
    "alive": (
        Alive,
        (
            lambda t: t.presence.own(), lambda t: t.presence.alive_of([ANN, BOB, EVE]),
            lambda t: t.presence.wait(0, timeout=0),
        ),
        lambda t: set(t.presence.alive()),
    ),
    "incarnation": (
        Incarnation, (lambda t: t.presence.incarnation(), lambda t: t.networks.questions(0, timeout=0)), lambda t: [BOB]
    ),
    "witness": (None, (lambda t: t.presence.witness(BOB),), lambda t: [BOB]),
    "list": (
        HostList,
        (
            lambda t: t.records.own_list(DEMO, Address("192.0.2.1")), lambda t: t.records.hosts_of(DEMO),
            lambda t: t.records.hosts_and_overlays(BOB), lambda t: t.believed(),
            lambda t: t.records.lists(DEMO, [ANN, BOB, EVE], t.known),
        ),
        lambda t: set(t.records.lists(DEMO, [ANN, BOB, EVE])) & t.records.hosts_and_overlays().keys(),
    ),
    "held": (
        HeldNetwork,
        (lambda t: t.networks.held(), lambda t: t.networks.called(), lambda t: t.networks.wait_held(0, timeout=0)),
        lambda t: t.networks.everywhere()[WEB],
    ),
    "definition": (
        Definition,
        (lambda t: t.firm(t.records.definition, DEMO), lambda t: t.records.definition(DEMO)),
        lambda t: [BOB],
    ),
    "member": (Member, (), lambda t: t.records.members(DEMO)),
    "ring": (Ring, (lambda t: t.turned(),), lambda t: t.records.changes(DEMO, 0, timeout=0).rings["7"].hosts),
    "row": (
        None,
        (
            lambda t: t.records.lookup(OF, ADDRESS), lambda t: t.records.lookup_mac(OF, MAC),
            lambda t: t.records.outsider(OF, ADDRESS), lambda t: t.index.lookup(ADDRESS, timeout=0),
            lambda t: t.outsider.lines(), lambda t: t.index.wait(0, timeout=0),
        ),
        lambda t: [BOB for peer in t.records.outsiders(OF, 0, timeout=0).peers if peer.address == "10.5.0.20"],
    ),
    "pool": (
        Pool,
        (lambda t: t.firm(t.records.pool, SUBNET), lambda t: t.records.pool(SUBNET)),
        lambda t: [BOB for held in t.records.pools() if held.value.subnet == "10.77.0.0/24"],
    ),
    "lease": (
        Lease,
        (
            lambda t: t.firm(t.records.lease, SUBNET, Address("10.5.0.3")),
            lambda t: t.records.lease_wait(SUBNET, Address("10.5.0.3"), 0, timeout=0),
            lambda t: t.records.leases_wait(SUBNET, 0, timeout=0),
        ),
        lambda t: t.records.leases(SUBNET)[Address("10.5.0.20")].value.hosts,
    ),
    "vni": (VniHolder, (), lambda t: [BOB] if t.records.vnis()[7] is not None else []),
    "plan": (
        NetworkPlan,
        (lambda t: t.firm(lambda name, **_: t.networks.plan(name), WEB), lambda t: t.networks.wait(0, timeout=0)),
        lambda t: [BOB] if OverlayName("other") in t.networks.plans().plans else [],
    ),
    "question": (Question, (), lambda t: [BOB] if "d" * 32 in t.networks.questions(0, timeout=0).questions else []),
    "answer-to": (
        Answer, (lambda t: t.networks.answered(),), lambda t: t.networks.answers(_QUESTION, 0, timeout=0).answers
    ),
    "path": (PathQuestion, (lambda t: t.each(t.paths.question),), lambda t: [BOB]),
    "path-answer": (
        PathAnswer, (lambda t: t.paths.answered(),), lambda t: t.paths.answers(_QUESTION, 0, timeout=0).answers
    ),
    "seek": (Seek, (lambda t: t.each(t.seeks.question),), lambda t: [BOB]),
    "seek-answer": (Sought, (), lambda t: t.seeks.answers(_QUESTION, 0, timeout=0).answers),
    "look": (Look, (), lambda t: t.outlooks.looks(t.store.entries.values())),
    "outlook": (Outlook, (), lambda t: t.outlooks.told()),
}  # fmt: skip
#: What is always there, of a kind whose readers are to find it: one by host BOB, or named so that it is found.
_STANDING = {
    "myoverlay/overlays/demo/changes/7": encode(Ring(last=1, hosts=(BOB,))),
    "demo-1/arp/10.5.0.20": b"02:42:0a:05:00:14",
    "demo-1/fib/02:42:0a:05:00:14": b"192.0.2.20",
    "myoverlay/subnets/10.77.0.0-24": encode(Pool(subnet=Subnet("10.77.0.0/24"), users=(BOB,))),
    "myoverlay/pools/10.5.0.0-24/10.5.0.20": encode(Lease(address=Address("10.5.0.20"), use="aux", hosts=(BOB,))),
    "myoverlay/vni/7": encode(VniHolder(overlay=DEMO, subnet=SUBNET)),
    "myoverlay/networks/other": encode(
        NetworkPlan(name=OverlayName("other"), id="d" * 32, subnet=Subnet("10.78.0.0/24"))
    ),
    f"myoverlay/incarnation/asks/{'d' * 32}": encode(
        Question(id="d" * 32, asker=BOB, overlay=DEMO, area=SUBNET, vnis=(), port=4789, mtu=1450)
    ),
}
_OF_BOB = (b"alive", b"list", b"held", b"member", b"answer-to", b"path-answer", b"seek-answer", b"look", b"outlook")


def _value(read: Callable[[bytes], Any], raw: bytes) -> Any:
    try:
        return read(raw)
    except ValueError:
        return None


#: The lists that bent ones began as.
_LISTS = [listed for kind, _, raw in _LINES if kind == b"list" and (listed := _value(decoder(HostList), raw))]


class Target:
    """The readers of one host."""

    LIMITS = {"unreadable keys": 1000, "when they were seen": 1000, "decoders": 40}

    def __init__(self) -> None:
        self.store: Any = Paper()
        for key, value in _STANDING.items():
            self.store.entries[key] = Entry(key, value, 0, 3)
        for kind, key, value in _LINES:
            if kind in _OF_BOB and key.find(BOB.encode()) >= 0:
                self.store.entries.setdefault(key.decode(), Entry(key.decode(), value, 0, 3))  # the first is a good one
        self.records = Records(self.store, PREFIX, ANN)
        self.presence = Presence(self.store, PREFIX, ANN)
        self.networks = NetworkRecords(self.store, PREFIX, ANN)
        self.paths = PathRecords(self.store, PREFIX, ANN)
        self.seeks = SeekRecords(self.store, PREFIX, ANN)
        self.outlooks = OutlookRecords(self.store, PREFIX, ANN)
        self.index, self.outsider = Index(self.store, "demo-1"), Outsider(self.store, "demo-1")
        self.consul = ConsulStore("192.0.2.1:8500")
        self.line = Line(self.consul._pool)
        self.consul._pool = cast(Any, self.line)
        self.consul._closed.set()  # a wait's pauses end at once
        self.catalogue = Catalogue(self.consul, PREFIX)
        self._standing = dict(self.store.entries)
        self.known = {host: Held(_LISTS[0], 1) for host in (ANN, BOB, EVE)}

    def make(self, tape: Tape) -> Given:
        kind, key, value = tape.pick(_LINES)
        is_json = value.startswith((b"{", b"["))
        if kind == b"answer":
            head = bent_json(tape, key, [key]) if tape.below(4) == 3 else key
            body = bent_json(tape, value, _VALUES) if is_json else bent(tape, value, _VALUES)
            return Given("answer", head.decode("utf-8", "replace"), body, 0, tape.below(len(_CALLS)))
        if tape.below(8) == 7:
            key = bent(tape, key, _KEYS, 300)
        value = bent_json(tape, value, _VALUES) if is_json else bent(tape, value, _VALUES)
        return Given(kind.decode(), key.decode("utf-8", "replace"), value, tape.pick(_FLAGS))

    def check(self, given: Given) -> None:
        if given.kind == "answer":
            self._answer(given)
            return
        self.store.entries[given.key] = Entry(given.key, given.value, given.flags, 9)
        try:
            form, readers, expected = KINDS[given.kind]
            for reader in readers:
                reader(self)
            if given.key not in self._standing:
                right(BOB in expected(self), f"{given.key} keeps readers from what is beside it")
            if form is not None:
                self._again(form, given.value)
        finally:
            self.store.entries = dict(self._standing)

    def _again(self, form: type, raw: bytes) -> None:
        """What is taken for a value is the same value when it has been written and read once more.

        A list is the same whatever list was read before it, also one in which a key is repeated.
        """
        read = decoder(form)
        value = _value(read, raw)
        if value is not None:
            right(read(encode(value)) == value, f"{value!r} is another when it is read again")
        if form is HostList:
            for told in (raw, raw.replace(b'"address":', b'"address":"x","address":', 1)):
                value = _value(read, told)
                for before in (*_LISTS, *([value] if value is not None else [])):
                    after = _value(reader_after(before), told)
                    right(after == value, f"{told!r} is {after!r} when {before!r} was read before it")

    def _answer(self, given: Given) -> None:
        """Whatever Consul says, callers get what they asked for, or hear that it is unavailable."""
        try:
            head = json.loads(given.key)
            code = head.pop("code", 200)
            headers = email.message_from_string("")
            for name, text in head.items():
                headers[name] = str(text).encode("latin-1", "replace").decode("latin-1").replace("\n", " ")
        except (ValueError, AttributeError, TypeError, RecursionError):
            return  # no such thing comes out of http.client
        self.line.answer = wire_module.Answer(code if type(code) is int else 200, headers, given.value)
        try:
            answer = _CALLS[given.asked](self)
        except Unavailable:
            return
        if isinstance(answer, Listing):
            right(all(type(one.value) is bytes for one in answer.entries), "a value is no bytes")
            right(type(answer.index) is int and answer.index > 0, f"index {answer.index}")

    def believed(self) -> None:
        lists = {host: held.value for host, held in self.records.lists(DEMO, [ANN, BOB, EVE]).items()}
        for peer in believed(OF, lists):
            right(OF.subnet.is_host(peer.address) and peer.address != OF.gateway, f"{peer.address} is no container's")
            right(peer.vtep.is_unicast, f"{peer.vtep} is no VTEP")

    def turned(self) -> None:
        """A ring that is taken goes on, and tells of no more than it has."""
        for name in ("3", "7", "asked"):
            ring = self.records.ring_at(self.records.key("overlays", DEMO, "changes", name)).value
            turned = ring.turned(BOB)
            right(turned.hosts[-1] == BOB and len(turned.hosts) <= 32, "a ring does not turn")
            right((ring.since(ring.last) or ()) == (), "a ring tells more than it knows")
            turned.follows(ring)
            ring.follows(turned)

    def firm(self, read: Callable[..., Any], *names: Any) -> None:
        try:
            read(*names, strict=True)
        except Unreadable:
            return

    def each(self, read: Callable[[Entry], Any]) -> None:
        for entry in self.store.entries.values():
            read(entry)

    def show(self, given: Given) -> str:
        return f"{given.kind} {given.key[:300]!r} flags {given.flags:#x} {given.value[:400]!r}"

    def left(self) -> dict[str, int]:
        readers = (self.records, self.presence, self.networks, self.paths, self.seeks, self.outlooks)
        return {
            "unreadable keys": max(*(len(one.quarantine) for one in readers), len(self.index.quarantine)),
            "when they were seen": max(len(one.quarantine.at) for one in readers),
            "decoders": sum(len(one._decoders) for one in readers),
        }

    def close(self) -> None:
        """Nothing is open."""


_CALLS: tuple[Reader, ...] = (
    lambda t: t.consul.get("k", sure=True),
    lambda t: t.consul.get_many(["k", "l"]),
    lambda t: t.consul.list("myoverlay/vni/"),
    lambda t: t.consul.keys("myoverlay/vni/"),
    lambda t: t.consul.wait("myoverlay/vni/", 0, timeout=0.0),
    lambda t: t.consul.wait("myoverlay/vni/", 12, timeout=0.0),
    lambda t: t.consul.wait_keys("myoverlay/vni/", 12, timeout=0.0),
    lambda t: t.consul.commit([Put("k", b"{}", index=0), Delete("l", 4), Check("m", 0)]),
    lambda t: t.consul.open_session("ann", 10.0),
    lambda t: t.consul.renew_session("s"),
    lambda t: t.consul.close_session("s"),
    lambda t: t.consul.clock(),
    lambda t: t.catalogue.read(ANN),
    lambda t: t.catalogue.hosts(),
    lambda t: t.catalogue.remove(ANN),
    lambda t: t.catalogue.collect(BOB, 4),
    lambda t: rights(t.consul, PREFIX, ANN, ["demo-1"], True, timeout=1.0),
)
