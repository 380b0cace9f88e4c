"""The peers' rows of one overlay: which there should be, and what of them has to be looked at after a change.

A change costs what it touched, whatever the size of the overlay. Everything is looked at where the ground is another,
where the last time failed half-way, and where the overlay passes the eager limit or becomes complete.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from myoverlay.host.converge import Converger
from myoverlay.host.ground import Ground
from myoverlay.host.view import View
from myoverlay.plan import rows
from myoverlay.plan.claims import NOTHING, Accused, Claims, Said, Touched
from myoverlay.plan.rows import Written
from myoverlay.values import Address, Endpoint, HostId, Mac, Peer, Record


class Programming:
    """Used under the overlay's lock, but for `wanted` and `is_eager`."""

    def __init__(self, converger: Converger, limit: int, present: Callable[[], tuple[Record, ...]]) -> None:
        """`limit`: more peers than that are not programmed before somebody asks; `present`: what is local."""
        self._converger = converger
        self._limit = limit
        self._present = present
        self.claims = Claims()
        #: Whom the other hosts accuse; and was all that they say heard once?
        self.accused: Accused = {}
        self.listed = False
        #: The ground whose rows are as they were wanted last.
        self._followed: Ground | None = None
        #: Above the limit: who was asked for.
        self._pulled: set[Address] = set()
        #: What was written for an answer since then: it may not be what is believed.
        self._answered = Touched(set(), set())
        #: What containers here may hold in a warm cache.
        self._macs: dict[Address, Mac] = {}
        #: The rows of a run before this one, until all is known anew; None before they were read.
        self._former: Written | None = None

    def meet(self, ground: Ground) -> None:
        """Containers here may hold in a warm cache what was true before this run of ours."""
        if self._former is None:
            self._former = ground.rows
        before = {row.address: row.mac for row in ground.rows.neigh.values()}
        before |= {record.address: record.mac for record in self._present()}
        self._macs = before | self._macs

    def hear(self, said: Iterable[Said], dead: Collection[HostId]) -> Touched:
        """What others say otherwise than before; who is a peer by that, `claims` has it."""
        self.claims, touched = self.claims.heard(said, dead, self._former or NOTHING, self.accused, self.listed)
        if self.accused and self.claims.undecided:
            more = self.judge(dead)
            return Touched(touched.addresses | more.addresses, touched.macs | more.macs)
        return touched

    def judge(self, dead: Collection[HostId]) -> Touched:
        """These hosts are dead now."""
        self.claims, touched = self.claims.judged(dead, self.accused, self._former or NOTHING)
        return touched

    def is_eager(self, view: View) -> bool:
        return len(view.peers) <= self._limit

    def follow(self, ground: Ground, before: View, view: View, touched: Touched) -> None:
        """What is known is no longer `before` but `view`, by what was touched."""
        was_eager, eager = self.is_eager(before), self.is_eager(view)
        if was_eager and not eager:  # what is programmed may be in use: it counts as pulled
            self._pulled |= set(ground.rows.neigh)
        alike = self._followed is ground and was_eager == eager and before.complete == view.complete
        self._followed = None
        if alike:
            self._some(ground, view, touched)
            peers = [peer for address in touched.addresses if (peer := view.peers.get(address)) is not None]
        else:
            self.everything(ground, view)
            peers = list(view.peers.values())
        self._tell_moved(ground, peers)
        self._followed = ground
        if view.complete:
            self._former = NOTHING

    def everything(self, ground: Ground, view: View) -> None:
        """Bring all rows to what is wanted."""
        self._converger.peers(ground, self.wanted(view), view.complete, self._present())
        self._answered = Touched(set(), set())

    def own(self, ground: Ground, view: View, endpoints: Iterable[Endpoint]) -> None:
        """These endpoints of this host came or went."""
        touched = Touched(set(), set())
        for one in endpoints:
            peer = view.peers.get(one.address)
            touched.addresses.add(one.address)
            touched.macs.update((one.mac, peer.mac) if peer is not None else (one.mac,))
        if self._followed is ground:
            self._followed = None
            self._some(ground, view, touched)
            self._followed = ground
        else:
            self.everything(ground, view)

    def _some(self, ground: Ground, view: View, touched: Touched) -> None:
        more, local = self._answered, self._present()
        known = {peer.mac for address in more.addresses if (peer := view.peers.get(address)) is not None}
        touched = Touched(touched.addresses | more.addresses, touched.macs | more.macs | known)
        want = self.claims.wanted(touched, local, None if self.is_eager(view) else self._pulled)
        self._converger.peers(ground, want, view.complete, local, touched)
        self._answered = Touched(set(), set())

    def answer(self, ground: Ground, peer: Peer, learned: View | None = None) -> None:
        """Somebody here asked for this peer: write its rows, and tell whoever asked.

        `learned`: what is known now, where it was told of since: its rows are there where peers are programmed ahead,
        and what stands no more is not passed on.
        """
        if learned is not None and learned.peers.get(peer.address) != peer:
            return
        self._pulled.add(peer.address)
        self._answered.addresses.add(peer.address)
        self._answered.macs.add(peer.mac)
        if learned is None or not self.is_eager(learned):
            known = self.claims.macs.get(peer.mac)
            # A MAC that somebody has is not led elsewhere because an address is told to be behind it too.
            there = peer if known is None else msgspec.structs.replace(peer, vtep=known.vtep)
            self._converger.refill(ground, rows.wanted({peer.address: there}, self._present()))
        self._converger.announce(ground, peer.address, peer.mac, "miss")

    def wanted(self, view: View) -> rows.Rows:
        """All rows that should be there."""
        claims, pulled = self.claims, None
        peers: Mapping[Address, Peer] = claims.peers
        if not self.is_eager(view):
            pulled = set(self._pulled)
            peers = {address: peer for address in pulled if (peer := claims.peers.get(address)) is not None}
        if not claims.twins:  # each MAC is one peer's: nobody has to be chosen
            return rows.wanted(peers, self._present())
        return claims.wanted(Touched(set(peers), {peer.mac for peer in peers.values()}), self._present(), pulled)

    def tell_peer(self, ground: Ground, view: View, address: Address) -> None:
        """An address is no longer here: if a peer has it, that is what containers here should know."""
        peer = view.peers.get(address)
        if peer is not None:
            self._tell_moved(ground, [peer])

    def tell_own(self, ground: Ground, one: Endpoint) -> None:
        """An address is here now."""
        self._tell_moved(ground, [one])

    def _tell_moved(self, ground: Ground, now: Iterable[Peer | Endpoint]) -> None:
        """Containers here may hold the former MAC of an address that moved, wherever it moved from and to."""
        current = {one.address: one.mac for one in now}
        for neigh in rows.moved(self._macs, current):
            self._converger.announce(ground, neigh.address, neigh.mac, "moved")
        self._macs.update(current)
