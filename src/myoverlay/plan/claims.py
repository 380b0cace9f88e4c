"""Who has which address, of all that the other hosts say: kept so that one host's word costs that word alone.

Of several who claim an address, or a MAC, one is its peer; the others are remembered, for the day it goes. Who has it
keeps it for as long as it says so and is not dead: an honest host claims nothing before the other has withdrawn it, so
one that does is wrong, or lies with a host's stolen token. Who begins to know an overlay did not see who had it first.
It goes by those that did: each host names in its own list, which it alone writes, whom it saw claim what another had.
Where they do not tell the claimants apart either, it is nobody's: no row is better than one that leads to a thief.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import TypeVar

import msgspec

from myoverlay.plan.rows import Rows, Written, rank
from myoverlay.plan.shared import Draft, Shared, apart
from myoverlay.values import Address, Definition, Fdb, HostId, HostList, Mac, Neigh, Peer, Record

K = TypeVar("K")

#: No rows.
NOTHING = Written()
#: Who says something: a host, or (None) all outsiders together.
Source = HostId | None
#: Whom others saw claim what somebody else had, and who says so.
Accused = Mapping[HostId, frozenset[HostId]]
#: Whose something was: by the rows of a former run, and by what this one knows.
Had = tuple[bool, bool]
#: How many hosts say so of one: enough to outvote stolen tokens, and in a large overlay not all write at once.
WITNESSES = 8
#: As many as a list may name: what is beyond says nothing new.
MAX_ACCUSED = 64


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
    # What did not change is the same object, or nearly all of it is: 100 records are not compared for one.
    parts = (old.values(), new.values()) if moved else apart(_of(before), _of(now))
    touched = dict.fromkeys(record.address for part in parts for record in part)
    peers: dict[Address, Peer | None] = {address: None for address in touched if address in old and address not in new}
    for address in touched:
        record = new.get(address)
        if record is None or (not moved and old.get(address) == record):
            continue
        fits = definition.subnet.is_host(address) and address != definition.gateway
        peers[address] = _peer(host, now, record) if fits and now is not None else None
    return Said(host, peers)


def said_outside(before: Iterable[Peer], now: Iterable[Peer]) -> Said:
    """What all outsiders say otherwise than before."""
    old, new = ({peer.address: peer for peer in peers} for peers in (before, now))
    peers: dict[Address, Peer | None] = {address: None for address in old if address not in new}
    return Said(None, peers | {address: peer for address, peer in new.items() if old.get(address) != peer})


def _of(listed: HostList | None) -> tuple[Record, ...]:
    return listed.records if listed is not None else ()


def _records(listed: HostList | None) -> dict[Address, Record]:
    """One record per address, the later one; none where the list names no VTEP that could be one."""
    if listed is None or not listed.vtep.is_unicast:
        return {}
    best = {record.address: record for record in listed.records}
    if len(best) < len(listed.records):  # an address twice: no host of ours writes that, and the others need not wait
        best = {}
        for record in listed.records:
            other = best.get(record.address)
            if other is None or record.generation > other.generation:
                best[record.address] = record
    return best


def _peer(host: HostId, listed: HostList, record: Record) -> Peer:
    return Peer(address=record.address, mac=record.mac, vtep=listed.vtep, host=host, generation=record.generation)


def accused_by(lists: Iterable[HostList]) -> Accused:
    """Whom these lists accuse, and who does."""
    found: dict[HostId, frozenset[HostId]] = {}
    for listed in lists:
        for host in listed.accuses:
            found[host] = found.get(host, frozenset()) | {listed.host}
    return found


def is_witness(me: HostId, against: HostId, others: Iterable[HostId]) -> bool:
    """Is this host among the few that name the accused one? By a number that each host has for each other one."""

    def number(host: HostId) -> tuple[int, str]:
        return zlib.crc32(f"{host} {against}".encode()), host

    mine = number(me)
    return sum(number(host) < mine for host in others if host not in (me, against)) < WITNESSES


class Claims(msgspec.Struct, frozen=True):
    """All claims. `rivals` are those of an address that are not its peer; `twins` a MAC's peers but the best.

    Where nobody can tell whose it is, there are several of these and no peer, or none for the MAC.
    """

    peers: Shared[Address, Peer] = Shared()
    macs: Shared[Mac, Peer] = Shared()
    rivals: Shared[Address, tuple[Peer, ...]] = Shared()
    twins: Shared[Mac, tuple[Peer, ...]] = Shared()

    def heard(
        self,
        said: Iterable[Said],
        dead: Collection[HostId] = (),
        former: Written = NOTHING,
        accused: Accused = MappingProxyType({}),
        listed: bool = True,
    ) -> tuple[Claims, Touched]:
        """The claims after that, and what they touch. The `dead` keep nothing against others.

        `former`: the rows that a run before this one left, which tell who had an address then. `listed`: what is said
        is said in its order, and who says it first has it; else all is heard for the first time, in no order.
        """
        draft = _Draft(self, dead, former, accused, listed)
        for one in said:
            draft.hear(one)
        return draft.done(), draft.touched

    def judged(
        self, dead: Collection[HostId], accused: Accused = MappingProxyType({}), former: Written = NOTHING
    ) -> tuple[Claims, Touched]:
        """The claims now that these hosts are dead, or accused: what others claim as well is theirs."""
        draft = _Draft(self, dead, former, accused, True)
        for address, rivals in self.rivals.items():
            one = self.peers.get(address, rivals[0])
            draft.claim(one.host, address, one)
        for mac in self.twins:
            draft.order(mac)
        return draft.done(), draft.touched

    def is_claimed(self, address: Address, mac: Mac) -> bool:
        """Does another host say that it has the address or the MAC?"""
        said = (self.peers.get(address), self.macs.get(mac), *self.rivals.get(address, ()), *self.twins.get(mac, ()))
        return any(peer is not None and peer.host is not None for peer in said)

    def accuses(self) -> frozenset[HostId]:
        """The hosts that claim what another host has."""
        found: set[HostId] = set()
        for address, rivals in self.rivals.items():
            found |= _others(self.peers.get(address), rivals)
        for mac, twins in self.twins.items():
            found |= _others(self.macs.get(mac), twins)
        return frozenset(found)

    @property
    def undecided(self) -> int:
        """How many addresses and MACs are nobody's because several claim them."""
        return sum(address not in self.peers for address in self.rivals) + sum(
            mac not in self.macs for mac in self.twins
        )

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


def _others(holder: Peer | None, claimants: Iterable[Peer]) -> set[HostId]:
    """Whoever claims what another host has. An outsider's word, which anybody can write, is no claim against hosts."""
    if holder is None or holder.host is None:
        return set()
    return {one.host for one in claimants if one.host is not None and one.host != holder.host}


class _Draft:
    """Claims while they are written."""

    def __init__(
        self, known: Claims, dead: Collection[HostId], former: Written, accused: Accused, listed: bool
    ) -> None:
        self._dead, self._former, self._accused, self._listed = frozenset(dead), former, accused, listed
        #: Who had each MAC before all that one source says now.
        self._holders: dict[Mac, Peer | None] = {}
        self._peers, self._macs = known.peers.edit(), known.macs.edit()
        self._rivals, self._twins = known.rivals.edit(), known.twins.edit()
        self.touched = Touched(set(), set())

    def hear(self, said: Said) -> None:
        self._holders.clear()
        for address, peer in said.peers.items():
            self.claim(said.source, address, peer)

    def claim(self, source: Source, address: Address, peer: Peer | None) -> None:
        best, rest = self._peers.get(address), self._rivals.get(address, ())
        winner = peer
        if rest or (best is not None and best.host != source):
            claims = [one for one in (best, *rest) if one is not None and one.host != source]
            claims += [peer] if peer is not None else []
            winner, others = self._chosen(claims, lambda one: self._had(one, best))
            _put(self._rivals, address, others)
        if winner == best:
            return
        self.touched.addresses.add(address)
        if best is not None:
            self._move(best.mac, [one for one in self._behind(best.mac) if one.address != address])
        if winner is None:
            self._peers.drop(address)
            return
        self._peers.set(address, winner)
        if best is None and rest:  # nobody's till now: whoever had the MAC meanwhile did not have it before this one
            self._holders[winner.mac] = None
        self._move(winner.mac, [*self._behind(winner.mac), winner])

    def _chosen(self, claims: list[Peer], had: Callable[[Peer], Had]) -> tuple[Peer | None, tuple[Peer, ...]]:
        """Whose it is, and who claims it beside: those who are not dead, then hosts of ours (outsiders are told by keys
        that anybody writes), then whose it was, then whom the fewest others accuse. None where that is not one host."""
        if len(claims) < 2:
            return (claims[0] if claims else None), ()
        hosts = {one.host for one in claims}

        def worth(one: Peer) -> tuple[bool, bool, Had, int]:
            accusers = self._accused.get(one.host, frozenset()) if one.host is not None else frozenset()
            return one.host not in self._dead, one.host is not None, had(one), -len(accusers - hosts - self._dead)

        ordered = sorted(claims, key=lambda one: (worth(one), rank(one)), reverse=True)
        best = worth(ordered[0])
        alike = {one.host for one in ordered if worth(one) == best}
        if len(alike) > 1 and ordered[0].host not in self._dead:
            return None, tuple(ordered)
        return ordered[0], tuple(ordered[1:])

    def _had(self, one: Peer, holder: Peer | None) -> Had:
        row = self._former.neigh.get(one.address)
        return row is not None and row.mac == one.mac and self._was_behind(one), self._holds(one, holder)

    def _had_mac(self, one: Peer, holder: Peer | None) -> Had:
        return self._was_behind(one), self._holds(one, holder)

    def _holds(self, one: Peer, holder: Peer | None) -> bool:
        return holder is not None and self._listed and holder.host == one.host

    def _was_behind(self, one: Peer) -> bool:
        row = self._former.fdb.get(one.mac)
        return row is not None and row.vtep == one.vtep

    def order(self, mac: Mac) -> None:
        """See anew who has the MAC."""
        before = self._macs.get(mac)
        if self._chosen(self._behind(mac), lambda one: self._had_mac(one, before))[0] != before:
            self._move(mac, self._behind(mac))

    def _behind(self, mac: Mac) -> list[Peer]:
        best = self._macs.get(mac)
        return [*((best,) if best is not None else ()), *self._twins.get(mac, ())]

    def _move(self, mac: Mac, peers: list[Peer]) -> None:
        """From now on these peers have the MAC."""
        self.touched.macs.add(mac)
        before = self._holders.setdefault(mac, self._macs.get(mac))
        best, others = self._chosen(peers, lambda one: self._had_mac(one, before))
        if best is not None:
            self._macs.set(mac, best)
        else:
            self._macs.drop(mac)
        _put(self._twins, mac, others)

    def done(self) -> Claims:
        return Claims(self._peers.done(), self._macs.done(), self._rivals.done(), self._twins.done())


def _put(table: Draft[K, tuple[Peer, ...]], key: K, value: tuple[Peer, ...]) -> None:
    """What is empty is not remembered."""
    if value:
        table.set(key, value)
    else:
        table.drop(key)
