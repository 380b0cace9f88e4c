"""What `myoverlay arpd` knows and writes: the rows of one tunnel follow the tutorial's keys.

Only rows that this process wrote, or wrote over, are ever taken away; when it ends they stay, as traffic needs them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from myoverlay.cli.tunnel import Here, Tunnel
from myoverlay.errors import KernelRefused
from myoverlay.plan import answers, rows
from myoverlay.store.index import Index, Pairs
from myoverlay.values import Address, Fdb, Mac, Miss, Peer, Record, Subnet

log = logging.getLogger(__name__)

#: Peers above which rows are pulled by misses and not written beforehand, as in the driver.
EAGER = 4000
#: Addresses that every link has for itself: nobody has a record of them.
_OF_THE_LINK = ("fe80:", "169.254.")
_EVERYWHERE = {4: Subnet("0.0.0.0/0"), 6: Subnet("::/0")}


class Known(NamedTuple):
    """What the keys say, seen from here; swapped whole."""

    peers: Mapping[Address, Peer]
    vteps: Mapping[Mac, Address]
    macs: Mapping[Mac, Peer]
    local: tuple[Record, ...]
    remote: Mapping[Address, Peer]


def known(peers: Mapping[Address, Peer], vteps: Mapping[Mac, Address], here: Here) -> Known:
    local = tuple(Record(address=peer.address, mac=peer.mac) for peer in peers.values() if here.has(peer))
    remote = {address: peer for address, peer in peers.items() if not here.has(peer)}
    return Known(peers, vteps, {peer.mac: peer for peer in remote.values()}, local, remote)


class Resolver:
    """What is known of the keys, and which rows are ours. `_lock` guards all of it, and what the tunnel reads."""

    def __init__(self, tunnel: Tunnel, mine: rows.Rows) -> None:
        """`mine` are rows that are there already and count as ours."""
        self._tunnel = tunnel
        self._lock = threading.Lock()
        self._here = tunnel.here()
        self._known = known({}, {}, self._here)
        self._announced: dict[Address, Mac] = {row.address: row.mac for row in mine.neigh}
        self._pulled: set[Address] = set()
        self._pulled_macs: set[Mac] = set()
        #: The rows that are ours.
        self.mine = mine
        #: Keys were listed at least once, so that what they do not say is known to be gone.
        self.listed = False

    def learn(self, pairs: Pairs, keep: bool) -> None:
        """The keys say so: make the rows follow. `keep`: what they do not name may have been lost, and stays."""
        with self._lock:
            peers, vteps = {peer.address: peer for peer in pairs.peers}, pairs.vteps
            if keep:
                peers, vteps = {**self._known.peers, **peers}, {**self._known.vteps, **vteps}
            self.listed = True
            self._settle(peers, vteps)

    def settle(self) -> None:
        """What is local may be another by now: make the rows follow."""
        with self._lock:
            if self.listed:
                self._settle(self._known.peers, self._known.vteps)

    def _settle(self, peers: Mapping[Address, Peer], vteps: Mapping[Mac, Address]) -> None:
        self._here = self._tunnel.here()
        self._known = known(peers, vteps, self._here)
        remote = self._known.remote
        want = rows.wanted(remote, (), None if len(remote) <= EAGER else self._pulled)
        if len(remote) > EAGER:
            macs = {row.mac for row in want.neigh} | self._pulled_macs
            want = rows.Rows(want.neigh, frozenset(row for row in want.fdb if row.mac in macs))
        there = {row.mac for row in want.fdb} | self._here.macs
        alone = {mac: vteps[mac] for mac in self._pulled_macs & vteps.keys() if mac not in there}
        want = rows.Rows(want.neigh, want.fdb | {Fdb(mac=mac, vtep=vtep) for mac, vtep in alone.items()})
        steps = rows.diff(want, self.mine)
        self._apply(steps)
        self.mine = want
        for step in steps:
            log.info("%s", step)
        now = {address: peer.mac for address, peer in peers.items()}
        for neigh in rows.moved(self._announced, now):
            self._announce(neigh.address, neigh.mac)
        self._announced.update(now)

    def refill(self) -> None:
        """Misses were lost: write whatever is missing in the kernel."""
        with self._lock:
            steps = rows.diff(self.mine, self._tunnel.rows())
            self._apply([step for step in steps if isinstance(step, rows.Set)])

    def miss(self, miss: Miss) -> answers.Ask | None:
        """Answer a miss from memory; what is returned is to be asked of the store."""
        address = miss.address
        with self._lock:
            if address is not None and (address in self._here.addresses or not _could_have_a_record(address)):
                return None
            subnet = _EVERYWHERE[address.version if address is not None else 4]
            now = self._known
            here = answers.Here.of(now.local, None, subnet)
            decided = answers.decide(miss, now.remote, now.macs, here, True)
            if isinstance(decided, answers.Answer):
                self._answer(decided.peer, miss)
                return None
            if isinstance(decided, answers.Silence):
                return None
            if decided.mac is not None and decided.mac in now.vteps:
                self._forward(decided.mac, now.vteps[decided.mac])
                return None
            return decided

    def found(self, peer: Peer, miss: Miss) -> bool:
        """The store knows the peer: write its rows and tell who asked. False where it is on this side."""
        with self._lock:
            self._here = self._tunnel.here()
            if self.listed:
                self._known = known({**self._known.peers, peer.address: peer}, self._known.vteps, self._here)
            return self._answer(peer, miss)

    def found_mac(self, mac: Mac, vtep: Address) -> bool:
        """The store knows where a MAC is that nobody has an address for. False where that is on this side."""
        with self._lock:
            self._here = self._tunnel.here()
            if self.listed:
                self._known = self._known._replace(vteps={**self._known.vteps, mac: vtep})
            return self._forward(mac, vtep)

    def _answer(self, peer: Peer, miss: Miss) -> bool:
        if self._here.has(peer):
            return False
        self._pulled.add(peer.address)
        self._write(rows.wanted({peer.address: peer}, ()))
        self._announced[peer.address] = peer.mac
        if miss.address is not None:
            self._announce(peer.address, peer.mac)
        return True

    def _forward(self, mac: Mac, vtep: Address) -> bool:
        if mac in self._here.macs or vtep in self._here.vteps:
            return False
        self._pulled_macs.add(mac)
        self._write(rows.Rows(fdb=frozenset({Fdb(mac=mac, vtep=vtep)})))
        return True

    def _write(self, more: rows.Rows) -> None:
        """Write them, whatever we believe is there: the kernel just missed them."""
        self._apply(rows.diff(more, rows.Rows()))
        self.mine = rows.merged(self.mine, more)

    def _apply(self, steps: Sequence[rows.Set | rows.Unset]) -> None:
        refused = self._tunnel.tables.set([step.row for step in steps if isinstance(step, rows.Set)])
        refused += self._tunnel.tables.unset([step.row for step in steps if isinstance(step, rows.Unset)])
        for row, error in refused:
            log.error("row %s: %s", row, error)

    def _announce(self, address: Address, mac: Mac) -> None:
        """Whoever asked waits for an ARP reply, and the miss does not say who it is: tell everybody on the bridge."""
        try:
            self._tunnel.announcer.announce(address, mac)
        except KernelRefused as error:
            log.warning("%s", error)


def _could_have_a_record(address: Address) -> bool:
    return address.is_unicast and not address.startswith(_OF_THE_LINK)


def follow_once(resolver: Resolver, index: Index) -> None:
    """Write what the keys say now. Raises Unavailable."""
    pairs = index.wait(0, timeout=3.0)
    assert isinstance(pairs, Pairs)
    resolver.learn(pairs, keep=False)
