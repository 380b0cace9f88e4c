"""What lies in the store, typed. The only module that knows keys.

    <prefix>/alive/<host>                       session-bound: that a host is there, its name and VTEPs
    <prefix>/hosts/<host>/overlays/<overlay>    its endpoints there: the truth about them, changed by their owner alone
    <prefix>/overlays/<overlay>/definition      what all hosts agree on
    <prefix>/overlays/<overlay>/members/<host>  who takes part, and from which VTEP: a hint
    <prefix>/overlays/<overlay>/changes/<ring>  who changed lately: a hint, small enough to watch
    <prefix>/subnets/<10.5.0.0-24>              a pool: the overlay that holds it, its gateway, the hosts that use it
    <prefix>/pools/<10.5.0.0-24>/<10.5.0.7>     a lease
    <prefix>/vni/<vni>                          who holds a VNI
    <records>/arp/<ip>  <records>/fib/<mac>     the tutorial's format, plain text, for everybody

Whatever is read is validated as if an enemy had written it: what does not fit is left out, counted and named in
`quarantine`, and never stops a reader. Ours among `arp/` and `fib/` carry `MARK` in the key's flags; a foreign PUT
clears it, so a key without the mark is an outsider's.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from myoverlay.naming import Shown
from myoverlay.store import MAX_OPS, Check, Conflict, Delete, Entry, Op, Put, Reset, Store, Unchanged
from myoverlay.store.hostlists import NOBODY, HostLists, Known
from myoverlay.store.pooled import MARK
from myoverlay.store.rings import ASKED, RINGS, Ring
from myoverlay.store.typed import Held, tail
from myoverlay.values import (
    Address,
    Definition,
    HostId,
    HostList,
    Mac,
    OverlayName,
    Peer,
    Record,
    Subnet,
    Value,
    encode,
)

#: An index claim takes two operations of a commit; the own list, the ring and the member hint take three.
MAX_CLAIMS = (MAX_OPS - 3) // 2
_MAX_TEXT = 64
_VNI = re.compile(r"[0-9]{1,8}")

T = TypeVar("T")


#: What an `arp/` or a `fib/` key says.
Row = tuple[Address, Mac] | tuple[Mac, Address]


def read_row(place: str, entry: Entry) -> Row | None:
    """What one of the tutorial's keys says; None for a key that is none. Raises ValueError for a bad one."""
    kind, _, name = entry.key.removeprefix(f"{place}/").partition("/")
    if kind == "arp":
        return Address(name), Mac(_text(entry.value))
    return (Mac(name), _vtep(_text(entry.value))) if kind == "fib" else None


class Member(Value, frozen=True, kw_only=True):
    """A host that takes part in an overlay."""

    name: Shown
    vtep: Address


class VniHolder(Value, frozen=True, kw_only=True):
    """The overlay that holds a VNI, and its subnet."""

    overlay: OverlayName
    subnet: Subnet


class Changes(msgspec.Struct, frozen=True):
    """All rings of an overlay at an index; in `asked` are the hosts that are asked for an address of their reserve."""

    rings: dict[str, Ring]
    asked: Ring
    index: int


class LookedUp(NamedTuple):
    """The peer that the index names, whether its keys carry our mark, and what was read along."""

    peer: Peer | None
    marked: bool
    lists: Mapping[HostId, Held[HostList]]


class Outsiders(msgspec.Struct, frozen=True):
    """All complete pairs of `arp/` and `fib/` keys that carry no mark of ours, at an index."""

    peers: tuple[Peer, ...]
    addresses: frozenset[Address]
    index: int


class Claim(msgspec.Struct, frozen=True):
    """A record to enter into the index, and the indexes its two keys have now (0: absent)."""

    record: Record
    arp: int = 0
    fib: int = 0


class Published(msgspec.Struct, frozen=True):
    """The list, the change and the index keys are written."""

    listed: Held[HostList]
    ring: Held[Ring]
    claimed: tuple[Entry, ...]


class Stale(msgspec.Struct, frozen=True):
    """Nothing was written, because these were not as we thought; `claims` are those whose keys somebody else has."""

    listed: bool
    ring: bool
    claims: tuple[Claim, ...]


class Records(HostLists):
    """Typed reads and writes for one host. Every method may raise Unavailable."""

    # -- keys ------------------------------------------------------------------------------------------------------

    def of_host(self, store: Store, host: HostId) -> Records:
        """The same keys, as another host would read and write them, through a store of the caller's."""
        return type(self)(store, self.prefix, host)

    def _ring_key(self, overlay: OverlayName, host: HostId) -> str:
        return self.key("overlays", overlay, "changes", zlib.crc32(host.encode()) % RINGS)

    # -- overlays --------------------------------------------------------------------------------------------------

    def definition(
        self, overlay: OverlayName, *, strict: bool = False, timeout: float = 3.0
    ) -> Held[Definition] | None:
        """An overlay's definition; a bad one is None, or, where that is `strict`, raises Unreadable."""
        entry = self.store.get(self.key("overlays", overlay, "definition"), timeout=timeout)
        held = self.read(Definition, entry)
        if entry is not None and held is not None and held.value.overlay != overlay:
            self.distrust(entry.key, f"it defines {held.value.overlay}")
            held = None
        return self.firmly(entry, held) if strict else held

    def vnis(self, *, timeout: float = 3.0) -> dict[int, VniHolder | None]:
        """All overlays of the store, by VNI: few and small. None: taken, and by whom cannot be read."""
        found: dict[int, VniHolder | None] = {}
        for entry in self.direct(self.store.list(self.key("vni", ""), timeout=timeout).entries, "vni"):
            held = self.read(VniHolder, entry)
            vni = tail(entry.key)
            if not _VNI.fullmatch(vni):
                self.distrust(entry.key, "it is named after no VNI")
            else:
                found[int(vni)] = held.value if held is not None else None
        return found

    def found(self, definition: Definition, member: Member, *, timeout: float = 3.0) -> str | None:
        """Write a new overlay's definition, take its VNI and become its first member.

        Returns None when done, else which of `definition` and `vni` somebody else has.
        """
        outcome = self.store.commit(
            [
                Put(self.key("overlays", definition.overlay, "definition"), encode(definition), index=0),
                Put(self.key("vni", definition.vni), encode(_holder(definition)), index=0),
                self._member_op(definition.overlay, member),
            ],
            timeout=timeout,
        )
        if isinstance(outcome, Conflict):
            return "definition" if not outcome.failed or 0 in outcome.failed else "vni"
        return None

    def join(self, held: Held[Definition], member: Member, *, timeout: float = 3.0) -> bool:
        """Take part in an overlay that exists; False where its definition changed meanwhile."""
        holders = tuple(sorted({*held.value.holders, self.me}))
        new = msgspec.structs.replace(held.value, holders=holders)
        key = self.key("overlays", new.overlay, "definition")
        ops = [Put(key, encode(new), index=held.index), self._member_op(new.overlay, member)]
        return not isinstance(self.store.commit(ops, timeout=timeout), Conflict)

    def is_member(self, held: Held[Definition], member: Member, *, timeout: float = 3.0) -> bool:
        """Does this host take part in the overlay, and as this member?"""
        entry = self.store.get(self.key("overlays", held.value.overlay, "members", self.me), timeout=timeout)
        known = self.read(Member, entry)
        return self.me in held.value.holders and known is not None and known.value == member

    def leave(self, held: Held[Definition], *, with_list: bool = True, timeout: float = 3.0) -> bool:
        """Take no more part; the last one takes the overlay's keys along. False where something changed meanwhile.

        A definition with index 0 is no more in the store, and one may name others only: what is this host's goes.
        """
        overlay, definition = held.value.overlay, held.value
        key = self.key("overlays", overlay, "definition")
        others = tuple(host for host in definition.holders if host != self.me)
        mine = (self.key("overlays", overlay, "members", self.me), self.list_key(self.me, overlay))
        ops: list[Op] = [Delete(entry.key, entry.index) for entry in self._present(mine[: 1 + with_list], timeout)]
        if others and others != definition.holders:
            ops.append(Put(key, encode(msgspec.structs.replace(definition, holders=others)), index=held.index))
        elif not others:
            rings = self.store.list(self.key("overlays", overlay, "changes", ""), timeout=timeout).entries
            vni = self.store.get(self.key("vni", definition.vni), timeout=timeout)
            ops.append(Delete(key, held.index) if held.index else Check(key, 0))
            ops.extend(Delete(entry.key, entry.index) for entry in rings[: RINGS + 1])
            if vni is not None and (holder := self.read(VniHolder, vni)) and holder.value.overlay == overlay:
                ops.append(Delete(vni.key, vni.index))
        return not ops or not isinstance(self.store.commit(ops, timeout=timeout), Conflict)

    def withdraw(self, definition: Definition, incarnation: str = "", *, timeout: float = 3.0) -> bool:
        """Tell the others that this host has no endpoints there any more, and take its keys out of the index.

        A list that merely vanished would withdraw nothing, and neither would one that names another `incarnation` of
        the store. False where something changed meanwhile.
        """
        listed = self.lists(definition.overlay, [self.me], timeout=timeout).get(self.me)
        if listed is None or not listed.value.records:
            return True
        entries = self.index_entries(definition, listed.value.records, timeout=timeout)
        for start in range(0, len(listed.value.records), MAX_CLAIMS // 2):
            chunk = listed.value.records[start : start + MAX_CLAIMS // 2]
            self.clear(self._own_entries(definition, listed.value.vtep, chunk, entries))
        new = msgspec.structs.replace(listed.value, records=(), incarnation=incarnation)
        ring = self.ring(definition.overlay, timeout=timeout)
        return isinstance(self.publish(definition, new, listed, ring, (), (), timeout=timeout), Published)

    def _own_entries(
        self, definition: Definition, vtep: Address, records: Iterable[Record], entries: Mapping[str, Entry]
    ) -> Iterator[Entry]:
        """Those of the records' index entries that are this host's: with our mark, and leading to its VTEP."""
        for record in records:
            arp, fib = entries.get(self.arp(definition, record.address)), entries.get(self.fib(definition, record.mac))
            if fib is not None and fib.flags == MARK and fib.value == vtep.encode():
                yield fib
                if arp is not None and arp.flags == MARK and arp.value == record.mac.encode():
                    yield arp

    def _present(self, keys: Sequence[str], timeout: float) -> Iterable[Entry]:
        return self.store.get_many(keys, timeout=timeout).values()

    def _member_op(self, overlay: OverlayName, member: Member) -> Put:
        return Put(self.key("overlays", overlay, "members", self.me), encode(member))

    def members(self, overlay: OverlayName, *, timeout: float = 3.0) -> dict[HostId, Member]:
        found, place = {}, ("overlays", overlay, "members")
        for entry in self.direct(self.store.list(self.key(*place, ""), timeout=timeout).entries, *place):
            held = self.read(Member, entry)
            try:
                host = HostId(tail(entry.key))
            except ValueError as error:
                self.distrust(entry.key, str(error))
                continue
            if held is not None:
                found[host] = held.value
        return found

    # -- endpoints -------------------------------------------------------------------------------------------------

    def ring(self, overlay: OverlayName, *, timeout: float = 3.0) -> Held[Ring]:
        """The ring this host writes its changes to."""
        return self.ring_at(self._ring_key(overlay, self.me), timeout=timeout)

    def index_entries(
        self, definition: Definition, records: Iterable[Record], *, timeout: float = 3.0
    ) -> dict[str, Entry]:
        """Those of the records' `arp/` and `fib/` keys that exist."""
        keys = [key for r in records for key in (self.arp(definition, r.address), self.fib(definition, r.mac))]
        return self.store.get_many(keys, timeout=timeout)

    def publish(
        self,
        definition: Definition,
        new: HostList,
        listed: Held[HostList] | None,
        ring: Held[Ring],
        claims: Sequence[Claim],
        drops: Sequence[Entry],
        *,
        timeout: float = 3.0,
    ) -> Published | Stale:
        """Write our list, say so in our ring, enter claims into the index and take drops out of it: all or nothing."""
        overlay = definition.overlay
        list_key, ring_key = self.list_key(self.me, overlay), self._ring_key(overlay, self.me)
        turned = ring.value.turned(self.me)
        ops: list[Op] = [
            Put(list_key, encode(new), index=listed.index if listed else 0),
            Put(ring_key, encode(turned), index=ring.index),
        ]
        for claim in claims:
            ops.extend(self._claim_ops(definition, new.vtep, claim))
        ops.extend(Delete(entry.key, entry.index) for entry in drops)
        outcome = self.store.commit(ops, timeout=timeout)
        if isinstance(outcome, Conflict):
            failed = outcome.failed
            taken = tuple(c for n, c in enumerate(claims) if 2 + 2 * n in failed or 3 + 2 * n in failed)
            return Stale(listed=0 in failed or not failed, ring=1 in failed or not failed, claims=taken)
        indexes = outcome.indexes
        puts = [put for claim in claims for put in self._claim_ops(definition, new.vtep, claim)]
        claimed = tuple(Entry(put.key, put.value, put.flags, indexes[put.key]) for put in puts)
        return Published(Held(new, indexes[list_key]), Held(turned, indexes[ring_key]), claimed)

    def clear(self, entries: Iterable[Entry]) -> bool:
        """Take leftovers out of the index, if they are still as they were read."""
        ops: list[Op] = [Delete(entry.key, entry.index) for entry in entries]
        return not isinstance(self.store.commit(ops), Conflict)

    def _claim_ops(self, definition: Definition, vtep: Address, claim: Claim) -> tuple[Put, Put]:
        record = claim.record
        return (
            Put(self.arp(definition, record.address), record.mac.encode(), MARK, claim.arp),
            Put(self.fib(definition, record.mac), vtep.encode(), MARK, claim.fib),
        )

    # -- watching --------------------------------------------------------------------------------------------------

    def changes(self, overlay: OverlayName, index: int, *, timeout: float) -> Changes | Unchanged | Reset:
        """Wait until a host of the overlay changed its list."""
        seen = self.store.wait(self.key("overlays", overlay, "changes", ""), index, timeout=timeout)
        if isinstance(seen, Unchanged | Reset):
            return seen
        rings = {}
        for entry in self.direct(seen.entries, "overlays", overlay, "changes"):
            held = self.read(Ring, entry)
            rings[tail(entry.key)] = held.value if held else Ring()
        return Changes(rings, rings.pop(ASKED, Ring()), seen.index)

    def outsiders(self, definition: Definition, index: int, *, timeout: float) -> Outsiders | Unchanged | Reset:
        """Wait until a key of the overlay's `arp/` or `fib/` changed; costs all of them at every change."""
        seen = self.store.wait(self.place(definition) + "/", index, timeout=timeout)
        if isinstance(seen, Unchanged | Reset):
            return seen
        vteps: dict[Mac, Address] = {}
        macs: dict[Address, Mac] = {}
        taken = set()
        for entry in seen.entries:
            row = self._row(definition, entry)
            if row is None:
                continue
            left, right = row
            if isinstance(left, Mac):
                vteps[left] = Address(right)
            elif entry.flags != MARK:
                macs[left] = Mac(right)
                taken.add(left)
        peers = tuple(Peer(address=a, mac=m, vtep=vteps[m]) for a, m in macs.items() if m in vteps)
        return Outsiders(peers, frozenset(taken), seen.index)

    def _row(self, definition: Definition, entry: Entry) -> Row | None:
        try:
            row = read_row(self.place(definition), entry)
            if row is not None and not isinstance(row[0], Mac):
                _inside(definition, row[0])
            return row
        except ValueError as error:
            self.distrust(entry.key, str(error))
            return None

    def lookup(
        self, definition: Definition, address: Address, near: Known = NOBODY, *, timeout: float = 1.0
    ) -> LookedUp:
        """Who has the address, by the index; and the lists of the hosts in `near`, read again in the same moment."""
        # A packet waits for it: the key of the MAC that nearly all have is read along.
        arp, fib = self.arp(definition, address), self.fib(definition, Mac.of(address))
        keys = {self.list_key(host, definition.overlay): host for host in near}
        found = self.store.get_many((arp, fib, *keys), timeout=timeout)
        lists = self.lists_among(found, keys, definition.overlay, near)
        row = self._row(definition, found[arp]) if arp in found else None
        if row is None:
            return LookedUp(None, False, lists)
        mac = Mac(row[1])
        usual = mac == Mac.of(address)
        held = self._behind(definition, found.get(fib)) if usual else self.lookup_mac(definition, mac, timeout=timeout)
        peer = Peer(address=address, mac=mac, vtep=held[0]) if held is not None else None
        return LookedUp(peer, found[arp].flags == MARK, lists)

    def lookup_mac(self, definition: Definition, mac: Mac, *, timeout: float = 1.0) -> tuple[Address, bool] | None:
        """Behind which VTEP a MAC is, by the index, and whether the key carries our mark."""
        return self._behind(definition, self.store.get(self.fib(definition, mac), timeout=timeout))

    def _behind(self, definition: Definition, fib: Entry | None) -> tuple[Address, bool] | None:
        row = self._row(definition, fib) if fib else None
        return (Address(row[1]), fib.flags == MARK) if fib and row else None

    def outsider(self, definition: Definition, address: Address, *, timeout: float = 3.0) -> str | None:
        """The key by which somebody who is none of us has the address, if there is one."""
        arp = self.store.get(self.arp(definition, address), timeout=timeout)
        return arp.key if arp is not None and arp.flags != MARK else None


def _holder(definition: Definition) -> VniHolder:
    return VniHolder(overlay=definition.overlay, subnet=definition.subnet)


def _text(value: bytes) -> str:
    """The plain text of an index key; people's PUTs may end in a newline."""
    if len(value) > _MAX_TEXT:
        raise ValueError(f"{len(value)} bytes where an address or a MAC should be")
    return value.decode("ascii", errors="strict").strip()


def _inside(definition: Definition, address: Address) -> Address:
    if not definition.subnet.is_host(address) or address == definition.gateway:
        raise ValueError(f"{address} is no container's address in {definition.subnet}")
    return address


def _vtep(text: str) -> Address:
    address = Address(text)
    if not address.is_unicast:
        raise ValueError(f"{address} cannot be a VTEP")
    return address
