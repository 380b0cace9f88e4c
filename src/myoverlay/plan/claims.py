"""Who has which address, of all that the other hosts say: kept so that one host's word costs that word alone.

Of several who claim an address, or a MAC, one is its peer; the others are remembered, for the day it goes. Who has it
keeps it for as long as it says so and is not dead: an honest host claims nothing before the other has withdrawn it, so
one that does is wrong, or lies with a host's stolen token. Whom nobody knew before is ranked (`rows.rank`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

import msgspec

from myoverlay.plan.rows import Rows, Written, rank
from myoverlay.plan.shared import Draft, Shared
from myoverlay.values import Address, Definition, Fdb, HostId, HostList, Mac, Neigh, Peer, Record

K = TypeVar("K")

#: No rows.
NOTHING = Written()
#: Who says something: a host, or (None) all outsiders together.
Source = HostId | None


class Touched(msgspec.Struct):
    """Addresses and MACs whose peers may be others than they were."""

    addresses: set[Address]
    macs: set[Mac]


class Said(msgspec.Struct, frozen=True):
    """What one source says now that it did not say before: None for what it says no more."""

    source: Source
    peers: Mapping[Address, Peer | None]


def said_by(definition: Definition, host: HostId, before: HostList | None, now: HostList | None) -> Said:
    """What a host's list says otherwise than the one before. A record that cannot be in the overlay is passed over."""
    if before is now:
        return Said(host, {})
    old, new = _records(before), _records(now)
    moved = before is not None and now is not None and before.vtep != now.vtep
    peers: dict[Address, Peer | None] = {address: None for address in old if address not in new}
    for address, record in new.items():
        if not moved and old.get(address) == record:
            continue
        fits = definition.subnet.is_host(address) and address != definition.gateway
        peers[address] = _peer(host, now, record) if fits and now is not None else None
    return Said(host, peers)


def said_outside(before: Iterable[Peer], now: Iterable[Peer]) -> Said:
    """What all outsiders say otherwise than before."""
    old, new = ({peer.address: peer for peer in peers} for peers in (before, now))
    peers: dict[Address, Peer | None] = {address: None for address in old if address not in new}
    return Said(None, peers | {address: peer for address, peer in new.items() if old.get(address) != peer})


def _records(listed: HostList | None) -> dict[Address, Record]:
    """One record per address, the later one; none where the list names no VTEP that could be one."""
    if listed is None or not listed.vtep.is_unicast:
        return {}
    best: dict[Address, Record] = {}
    for record in listed.records:
        other = best.get(record.address)
        if other is None or record.generation > other.generation:
            best[record.address] = record
    return best


def _peer(host: HostId, listed: HostList, record: Record) -> Peer:
    return Peer(address=record.address, mac=record.mac, vtep=listed.vtep, host=host, generation=record.generation)


class Claims(msgspec.Struct, frozen=True):
    """All claims. `rivals` are those of an address that are not its peer; `twins` a MAC's peers but the best."""

    peers: Shared[Address, Peer] = Shared()
    macs: Shared[Mac, Peer] = Shared()
    rivals: Shared[Address, tuple[Peer, ...]] = Shared()
    twins: Shared[Mac, tuple[Peer, ...]] = Shared()

    def heard(
        self, said: Iterable[Said], dead: Collection[HostId] = (), former: Written = NOTHING
    ) -> tuple[Claims, Touched]:
        """The claims after that, and what they touch. The `dead` keep nothing against others.

        `former`: the rows that a run before this one left, which tell who had an address then.
        """
        draft = _Draft(self, dead, former)
        for one in said:
            for address, peer in one.peers.items():
                draft.claim(one.source, address, peer)
        return draft.done(), draft.touched

    def judged(self, dead: Collection[HostId]) -> tuple[Claims, Touched]:
        """The claims now that these hosts are dead: what others claim as well is theirs."""
        draft = _Draft(self, dead, NOTHING)
        for address in self.rivals:
            best = self.peers[address]
            draft.claim(best.host, address, best)
        for mac in self.twins:
            draft.order(mac)
        return draft.done(), draft.touched

    def behind(self, mac: Mac) -> tuple[Peer, ...]:
        """All peers with this MAC, the best first."""
        best = self.macs.get(mac)
        return (best, *self.twins.get(mac, ())) if best is not None else ()

    def wanted(self, touched: Touched, local: Iterable[Record], only: set[Address] | None) -> Rows:
        """The rows that these addresses and MACs should have: `rows.wanted` of all peers, as far as they go."""
        here, macs = set(), set()
        for record in local:
            here.add(record.address)
            macs.add(record.mac)
        neigh, fdb = set(), set()
        for address in touched.addresses:
            peer = self.peers.get(address)
            if peer is not None and address not in here and (only is None or address in only):
                neigh.add(Neigh(address=address, mac=peer.mac))
        for mac in touched.macs - macs:
            for peer in self.behind(mac):
                if peer.address not in here and (only is None or peer.address in only):
                    fdb.add(Fdb(mac=mac, vtep=peer.vtep))
                    break
        return Rows(frozenset(neigh), frozenset(fdb))


class _Draft:
    """Claims while they are written. Who had something is who had it before all that is written here."""

    def __init__(self, known: Claims, dead: Collection[HostId], former: Written) -> None:
        self._known, self._dead, self._former = known, dead, former
        self._peers, self._macs = known.peers.edit(), known.macs.edit()
        self._rivals, self._twins = known.rivals.edit(), known.twins.edit()
        self.touched = Touched(set(), set())

    def claim(self, source: Source, address: Address, peer: Peer | None) -> None:
        best, rest = self._peers.get(address), self._rivals.get(address, ())
        winner = peer
        if rest or (best is not None and best.host != source):
            claims = [one for one in (best, *rest) if one is not None and one.host != source]
            claims += [peer] if peer is not None else []
            claims.sort(key=lambda one: (self._has(one), rank(one)), reverse=True)
            winner = claims[0] if claims else None
            _put(self._rivals, address, tuple(claims[1:]))
        if winner == best:
            return
        self.touched.addresses.add(address)
        if best is not None:
            self._move(best.mac, [one for one in self._behind(best.mac) if one.address != address])
        if winner is None:
            self._peers.drop(address)
            return
        self._peers.set(address, winner)
        self._move(winner.mac, [*self._behind(winner.mac), winner])

    def _has(self, one: Peer) -> tuple[bool, bool, bool]:
        """Not dead, then a host of ours (outsiders are told by keys that anybody writes), then whose it was."""
        holder = self._known.peers.get(one.address)
        if holder is not None:
            had = holder.host == one.host
        else:
            row = self._former.neigh.get(one.address)
            had = row is not None and row.mac == one.mac and self._was_behind(one)
        return one.host not in self._dead, one.host is not None, had

    def _has_mac(self, one: Peer) -> tuple[bool, bool, bool]:
        holder = self._known.macs.get(one.mac)
        had = holder.host == one.host if holder is not None else self._was_behind(one)
        return one.host not in self._dead, one.host is not None, had

    def _was_behind(self, one: Peer) -> bool:
        row = self._former.fdb.get(one.mac)
        return row is not None and row.vtep == one.vtep

    def order(self, mac: Mac) -> None:
        """See anew who has the MAC."""
        before = self._behind(mac)
        if max(before, key=lambda one: (self._has_mac(one), rank(one))) != before[0]:
            self._move(mac, before)

    def _behind(self, mac: Mac) -> list[Peer]:
        best = self._macs.get(mac)
        return [best, *self._twins.get(mac, ())] if best is not None else []

    def _move(self, mac: Mac, peers: list[Peer]) -> None:
        """From now on these peers have the MAC."""
        self.touched.macs.add(mac)
        if len(peers) > 1:
            peers.sort(key=lambda one: (self._has_mac(one), rank(one)), reverse=True)
        if peers:
            self._macs.set(mac, peers[0])
        else:
            self._macs.drop(mac)
        _put(self._twins, mac, tuple(peers[1:]))

    def done(self) -> Claims:
        return Claims(self._peers.done(), self._macs.done(), self._rivals.done(), self._twins.done())


def _put(table: Draft[K, tuple[Peer, ...]], key: K, value: tuple[Peer, ...]) -> None:
    """What is empty is not remembered."""
    if value:
        table.set(key, value)
    else:
        table.drop(key)
