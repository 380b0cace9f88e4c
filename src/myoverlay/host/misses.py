"""The kernel's questions: answered from memory, or by one look into the store.

An L3 miss of a peer deserves its rows and a broadcast ARP reply: the message does not say who asked, and the reply
completes the asker's entry, so that the packets it has queued are delivered (design section 5).
"""

from __future__ import annotations

import logging
import os
import queue
import selectors
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from myoverlay.errors import KernelRefused
from myoverlay.host.discover import Discovery
from myoverlay.host.ground import Ground
from myoverlay.host.local import LocalOverlay
from myoverlay.host.loop import Loop
from myoverlay.host.overlays import Overlays
from myoverlay.host.view import View
from myoverlay.kernel.listener import Overrun
from myoverlay.plan import answers
from myoverlay.plan.gate import BURST, QUIET, RATE, Gate
from myoverlay.store.hostlists import NOBODY
from myoverlay.store.records import Records
from myoverlay.tally import Tally
from myoverlay.values import Address, Miss, Peer

log = logging.getLogger(__name__)

_DEADLINE = 1.0
_ROUND = 1.0
#: Seconds that a container tries for: it asks three times, one second apart (mcast_solicit, retrans_time_ms).
_TRIES = 3.0


class MissLoop(Loop):
    """Owns the thread `misses`: from the socket to the reply in one thread."""

    def __init__(self, overlays: Overlays, lookup: Lookup, tally: Tally) -> None:
        super().__init__("misses", tally)
        self._overlays = overlays
        self._lookup = lookup
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._sockets: dict[int, tuple[LocalOverlay, Ground]] = {}
        #: Called with each question and what became of it.
        self.on_miss: Callable[[LocalOverlay, Miss, str], None] = lambda *_: None
        #: Called where more came than could be heard.
        self.on_overrun: Callable[[LocalOverlay], None] = lambda _: None

    def stop(self, timeout: float) -> None:
        super().stop(timeout)
        self._selector.close()
        os.close(self._wake)

    def wake(self) -> None:
        os.eventfd_write(self._wake, 1)

    def refresh(self) -> None:
        """The overlays of this host changed."""
        if not self.stopping.is_set():  # afterwards the number may be somebody else's
            self.wake()

    def round(self) -> None:
        for key, _ in self._selector.select(_ROUND):
            if key.fd == self._wake:
                os.eventfd_read(self._wake)
            elif key.fd in self._sockets:
                self.step(*self._sockets[key.fd])
        self._register()

    def _register(self) -> None:
        """Follow overlays that came or went. A number may be another socket's by now: the ground tells them apart."""
        old, now = self._sockets, self._overlays.by_socket()
        for fd in old:
            if now.get(fd) != old[fd]:
                self._selector.unregister(fd)
        for fd in now:
            if now[fd] != old.get(fd):
                self._selector.register(fd, selectors.EVENT_READ)
        self._sockets = now

    def step(self, local: LocalOverlay, ground: Ground) -> None:
        """Answer what one overlay's socket holds."""
        try:
            misses = ground.misses.read()
        except Overrun:
            self.tally.add("overruns")
            self._lookup.compare(local)
            self.on_overrun(local)
            return
        except (OSError, KernelRefused) as error:
            log.info("overlay %s: its miss socket is closed: %s", local.network.overlay, error)
            return
        self._answer(local, [miss for miss in misses if miss.ifindex == ground.ifindex])

    def _answer(self, local: LocalOverlay, misses: Sequence[Miss]) -> None:
        """Who is known is answered before anybody is looked for: in a storm of questions for nobody it need not wait.

        The state of this host is read once for all of them, which came within milliseconds; and the outcomes are
        counted, and those of a storm that were turned away noted, once for all of a kind.
        """
        view, definition, eager = local.view, local.network.definition, local.eager
        here = answers.Here.of(local.present(), definition.gateway, definition.subnet)
        others: list[tuple[Miss, answers.Ask | answers.Silence]] = []
        outcomes: Counter[str] = Counter()
        for miss in misses:
            decided = answers.decide(miss, view.peers, view.macs, here, eager)
            if isinstance(decided, answers.Answer):
                local.answer(decided.peer)
                outcomes[decided.kind] += 1
                self.on_miss(local, miss, decided.kind)
            else:
                others.append((miss, decided))
        self._look_for(local, others, outcomes)
        for outcome, count in outcomes.items():
            self.tally.add("misses", outcome, count)

    def _look_for(
        self,
        local: LocalOverlay,
        misses: Sequence[tuple[Miss, answers.Ask | answers.Silence]],
        outcomes: Counter[str],
    ) -> None:
        """Have the store asked for who is not known, as many as may be: of those that came together the others are
        turned away at once.
        """
        turned_away: Miss | None = None
        has_room = True
        for miss, decided in misses:
            if isinstance(decided, answers.Silence):
                outcome = decided.kind
            elif has_room and self._lookup.ask(local, decided):
                outcome = "asked"
            else:
                has_room = has_room and self._lookup.has_room()
                turned_away, outcome = miss, "limited"
            outcomes[outcome] += 1
            if outcome != "limited":
                self.on_miss(local, miss, outcome)
        if turned_away is not None:
            self.on_miss(local, turned_away, "limited")


class _Question(msgspec.Struct, frozen=True):
    local: LocalOverlay
    ask: answers.Ask

    @property
    def name(self) -> tuple[str, str]:
        return self.local.network.network, str(self.ask.address or self.ask.mac)


class Lookup(Loop):
    """Owns the thread `lookup`: asks the store what nobody here knows, each question once.

    `_lock` guards the gate, and who is awaited.
    """

    def __init__(
        self, records: Records, discovery: Discovery, tally: Tally, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__("lookup", tally)
        self._records = records
        self._discovery = discovery
        self._now = now
        self._lock = threading.Lock()
        self._gate = Gate(BURST, RATE, QUIET)
        self._queue: queue.SimpleQueue[_Question | LocalOverlay | None] = queue.SimpleQueue()
        #: Addresses that somebody here asked for, by network, and until when he waits.
        self._awaited: dict[tuple[str, Address], float] = {}
        discovery.on_known = self._known
        #: Called with what the store was asked for, an address or a MAC, and what came of it.
        self.on_outcome: Callable[[LocalOverlay, Address | None, str | None, str], None] = lambda *_: None

    def wake(self) -> None:
        self._queue.put(None)

    def compare(self, local: LocalOverlay) -> None:
        """Have an overlay's tables compared: misses were lost."""
        self._queue.put(local)

    def ask(self, local: LocalOverlay, ask: answers.Ask) -> bool:
        """Have the store asked; False where it was asked just now, or too often."""
        question, now = _Question(local, ask), self._now()
        with self._lock:
            if not self._gate.admits(question.name, now):
                return False
            if ask.address is not None:
                if len(self._awaited) > 10 * BURST:
                    self._awaited = {asked: until for asked, until in self._awaited.items() if until > now}
                self._awaited[local.network.network, ask.address] = now + _TRIES
        self._queue.put(question)
        return True

    def has_room(self) -> bool:
        """May the store be asked for anything now?"""
        with self._lock:
            return self._gate.has_room(self._now())

    def round(self) -> None:
        item = self._queue.get()
        if isinstance(item, LocalOverlay):
            item.compare()
        elif item is not None and self._is_wanted(item):
            peer = self._find(item)
            if peer is not None and self._is_awaited(item):
                learned = item.local.view.peers.get(peer.address) == peer
                item.local.answer(peer, learned)
            outcome = "found" if peer else "unknown"
            self.tally.add("misses", outcome)
            self.on_outcome(item.local, item.ask.address, item.ask.mac, outcome)

    def _known(self, local: LocalOverlay, _before: View, after: View) -> None:
        """The store told of something, from any thread: who is awaited is passed on at once, also where the store was
        asked for him in vain before. The container that asked does so again only after a second, and then another.
        """
        network, now = local.network.network, self._now()
        with self._lock:
            told = [
                address
                for (of, address), until in self._awaited.items()
                if of == network and until > now and address in after.peers
            ]
            for address in told:
                del self._awaited[network, address]
        for address in told:
            try:
                local.answer(after.peers[address], learned=True)
            except KernelRefused as error:  # the next round puts it right
                log.warning("overlay %s: %s is not passed on: %s", local.network.overlay, address, error)

    def _is_awaited(self, question: _Question) -> bool:
        """Has nobody passed on yet who is asked for? He is from now on."""
        address = question.ask.address
        if address is None:
            return True
        with self._lock:
            return self._awaited.pop((question.local.network.network, address), None) is not None

    def _is_wanted(self, question: _Question) -> bool:
        """Questions that waited too long, because the store was away, are dropped: who wants to know asks again."""
        with self._lock:
            return self._gate.is_open(question.name, self._now())

    def _find(self, question: _Question) -> Peer | None:
        """The peer the question is about. What carries our mark is believed only from its owner's list."""
        local, ask = question.local, question.ask
        definition = local.network.definition
        if ask.address is not None:
            return self._find_address(local, ask.address)
        if ask.mac is None:
            return None
        behind = self._records.lookup_mac(definition, ask.mac, timeout=_DEADLINE)
        if behind is None or not behind[1]:
            return None  # an outsider's MAC without an address is of no use: its pair comes with the watch
        mac = ask.mac
        return self._from_owner(local, behind[0], lambda: local.view.macs.get(mac))

    def _find_address(self, local: LocalOverlay, address: Address) -> Peer | None:
        """In a small overlay one question is enough: all lists come with the index."""
        watch = self._discovery.watch_of(local)
        near = watch.at_hand() if watch is not None else NOBODY
        found = self._records.lookup(local.network.definition, address, near, timeout=_DEADLINE)
        if watch is not None:
            watch.learn(found.lists)
        known, peer = local.view.peers.get(address), found.peer
        if known is not None or peer is None:
            return known
        if found.marked:
            return self._from_owner(local, peer.vtep, lambda: local.view.peers.get(address))
        return peer if local.network.outsiders else None

    def _from_owner(self, local: LocalOverlay, vtep: Address, known: Callable[[], Peer | None]) -> Peer | None:
        """What the hosts with that VTEP say themselves, at first those of them that are known here."""
        watch = self._discovery.watch_of(local)
        if watch is None:
            return known()
        hosts = {host for host, held in (local.view.lists or {}).items() if held.value.vtep == vtep}
        watch.fetch(hosts)
        peer = known()
        if peer is None:
            members = self._records.members(local.network.overlay, timeout=_DEADLINE)
            watch.fetch({host for host, member in members.items() if member.vtep == vtep} - hosts)
            peer = known()
        return peer
