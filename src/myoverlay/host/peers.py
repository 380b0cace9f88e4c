"""The other hosts: who is alive, who is only cut off from the store, who is dead.

`PeerWatch` learns from the store whose session lives, `Fates` combines that with the heartbeat and acts on it: rows of
a host go when it was dead for the grace, its addresses after the lease grace (`graves`). Time-outs run on this host's
own clock, from the moment it found the other one dead.
"""

from __future__ import annotations

import bisect
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple, Protocol

import msgspec

from myoverlay.errors import Unavailable
from myoverlay.host.loop import COALESCE, WAIT, Loop
from myoverlay.plan.fates import Fate, State, judge
from myoverlay.plan.measure import Reach
from myoverlay.store import Reset, Unchanged
from myoverlay.store.presence import Presence
from myoverlay.store.records import Records
from myoverlay.tally import Tally
from myoverlay.values import Address, HostId, OverlayName

log = logging.getLogger(__name__)

#: How often fates are judged, seconds: what a grace may be late.
TICK = 1.0
#: Who shares an overlay with this host is read again after this, seconds; for each host there is at least so much, that
#: all of them together ask Consul no more often the more they are; and what so many say of themselves, in turn.
REFRESH, REFRESH_EACH, AT_ONCE = 60.0, 0.3, 64
#: A host that is there has looked at the store and written what it holds after this, seconds.
SETTLED = 30.0


class Heard(Protocol):
    """What the heartbeat knows of one host."""

    @property
    def heard(self) -> float | None: ...
    @property
    def silent(self) -> bool: ...
    @property
    def rtt(self) -> float | None: ...
    @property
    def carries(self) -> bool | None: ...
    @property
    def loss(self) -> float | None: ...


class Standing(NamedTuple):
    """How the heartbeat itself stands: what keeps it from asking, if anything, and its full size in bytes."""

    trouble: str
    mtu: int


class Heartbeat(Protocol):
    """What is needed of the heartbeat."""

    on_change: Callable[[], None]

    def suspect(self, hosts: Collection[HostId]) -> None: ...
    def pulse(self, host: HostId) -> Heard: ...
    def state(self) -> Standing: ...
    def measure(self, targets: Mapping[HostId, Address], size: int, patience: float) -> dict[HostId, Reach]: ...
    def retire(self, timeout: float) -> bool: ...


class Known(msgspec.Struct, frozen=True):
    """What the store says of the other hosts; swapped whole. `present` is None before it was read.

    `listed` are the overlays that each has a list for, as of the last time that all were read.
    """

    present: frozenset[HostId] | None = None
    names: Mapping[HostId, str] = {}
    versions: Mapping[HostId, str] = {}
    vteps: Mapping[HostId, Address] = {}
    listed: Mapping[HostId, frozenset[OverlayName]] = {}


class PeerWatch(Loop):
    """Owns the thread `peers`: follows whose session lives, and who shares an overlay with this host."""

    def __init__(
        self,
        presence: Presence,
        records: Records,
        seen: Callable[[], Mapping[OverlayName, Mapping[HostId, Address]]],
        on_loss: Callable[[float], None],
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`seen`: this host's overlays, and for each the hosts that have rows here, with their VTEPs."""
        super().__init__("peers", tally)
        self.known = Known()
        self._presence = presence
        self._records = records
        self._seen = seen
        self._on_loss = on_loss
        self._now = now
        self._index = 0
        self._read_at = now()
        self._refreshed_at: float | None = None
        #: Whose word was read again last, in their order.
        self._reread = ""
        #: Called when what is known changed.
        self.on_change: Callable[[], None] = lambda: None

    def round(self) -> None:
        """One answer of the store. Raises Unavailable."""
        if self.step(WAIT):
            self.stopping.wait(COALESCE)

    def step(self, wait: float) -> bool:
        """One answer of the store; was it news? Raises Unavailable."""
        fresh = self._index == 0
        seen = self._presence.wait(self._index, timeout=3.0 if fresh else min(wait, REFRESH))
        if isinstance(seen, Reset):
            self._on_loss(self._read_at)
            self._index = 0
            return False
        if not isinstance(seen, Unchanged):
            self._see(seen.hosts)
            self._index, self._read_at = seen.index, self._now()
        elif self._is_due():
            self._see(self.known.present or frozenset())
        return not isinstance(seen, Unchanged) and not fresh

    def _is_due(self) -> bool:
        at = self._refreshed_at
        return at is None or self._now() - at >= max(REFRESH, REFRESH_EACH * len(self.known.present or ()))

    def _see(self, present: frozenset[HostId]) -> None:
        everything, before = self._is_due(), self._refreshed_at
        if everything:
            self._refreshed_at = self._now()
        try:
            self._read(present - {self._records.me}, everything)
        except Unavailable:
            self._refreshed_at = before
            raise
        self.on_change()

    def _read(self, others: frozenset[HostId], everything: bool) -> None:
        """What those say of themselves who came, and what those have who went: little, for all other hosts read it in
        the same moment. Now and then: who has which overlay, and in turn what others say by now.

        Where there are not many, all of them: the news may be, or hide, that one says something else, of another VTEP
        say, by which alone it gets through this host's guard from then on. The store does not tell which one it is.
        """
        old, before = self.known, self.known.present or frozenset()
        asked = {host for host in others if host not in before or host not in old.names}
        alive = self._presence.alive_of(asked | self._next(others) if everything or len(others) <= AT_ONCE else asked)
        names = {**old.names, **{host: one.name for host, one in alive.items()}}
        versions = {**old.versions, **{host: one.version for host, one in alive.items()}}
        vteps = {**old.vteps, **{host: one.vteps[0] for host, one in alive.items() if one.vteps}}
        listed = self._listed() if everything else {**old.listed, **self._left_by(before - others)}
        seen = self._seen().keys()
        for host, overlays in listed.items():
            if (shared := overlays & seen) and not (host in names and host in vteps):
                self._look_up(host, min(shared), names, vteps)
        self.known = Known(others, names, versions, vteps, listed)

    def _next(self, others: Collection[HostId]) -> set[HostId]:
        ordered = sorted(others)
        at = bisect.bisect(ordered, self._reread)
        turn = (ordered[at:] + ordered[:at])[:AT_ONCE]
        self._reread = turn[-1] if turn else ""
        return set(turn)

    def _listed(self) -> dict[HostId, frozenset[OverlayName]]:
        """All hosts that have a list, or are named elsewhere, with their overlays."""
        me = self._records.me
        listed = {host: frozenset(found) for host, found in self._records.hosts_and_overlays().items() if host != me}
        for host, overlay in self._named_elsewhere():
            if host != me:
                listed[host] = listed.get(host, frozenset()) | {overlay}
        return listed

    def _left_by(self, hosts: Collection[HostId]) -> dict[HostId, frozenset[OverlayName]]:
        """The overlays of hosts that went: what is known of them by their rows here ends with the rows."""
        return {host: frozenset(self._records.hosts_and_overlays(host).get(host, ())) for host in hosts}

    def _named_elsewhere(self) -> Iterator[tuple[HostId, OverlayName]]:
        """Holders of this host's overlays and users of their pools: one that died before it published is one."""
        seen = self._seen()
        for overlay in seen:
            held = self._records.definition(overlay)
            yield from ((host, overlay) for host in (held.value.holders if held is not None else ()))
        for pool in self._records.pools():
            overlay_of = pool.value.overlay
            if overlay_of is not None and overlay_of in seen:
                yield from ((host, overlay_of) for host in pool.value.users)

    def sharing(self) -> dict[HostId, frozenset[OverlayName]]:
        """Who shares overlays with this host: by the lists in the store, and by rows here, should it lose those."""
        seen, found = self._seen(), {}
        for host, listed in self.known.listed.items():
            found[host] = listed & seen.keys()
        for overlay, hosts in seen.items():
            for host in hosts:
                found[host] = found.get(host, frozenset()) | {overlay}
        return {host: overlays for host, overlays in found.items() if overlays}

    def where(self) -> dict[HostId, Address]:
        """The VTEPs of those who share an overlay with this host, as far as known: by their lists, else by `alive`."""
        shown = {host: vtep for hosts in self._seen().values() for host, vtep in hosts.items()}
        known = {**self.known.vteps, **shown}
        return {host: known[host] for host in self.sharing() if host in known}

    def _look_up(
        self, host: HostId, overlay: OverlayName, names: dict[HostId, str], vteps: dict[HostId, Address]
    ) -> None:
        """A host that has not been there since this one started: its list says where it was."""
        member = self._records.members(overlay).get(host)
        listed = self._records.lists(overlay, [host]).get(host)
        if member is not None:
            names.setdefault(host, member.name)
            vteps.setdefault(host, member.vtep)
        if listed is not None:
            vteps.setdefault(host, listed.value.vtep)

    def is_present(self, host: HostId) -> bool:
        """Has it a session, as the store says now? Raises Unavailable."""
        return bool(self._presence.alive_of([host]))

    def refresh(self) -> None:
        """Read all again at the next answer."""
        self._refreshed_at = None


class Fates(Loop):
    """Owns the thread `fates`. `_lock` guards `_fates`, `_respites`, `_lost` and `_dead`, all else is its own."""

    def __init__(
        self,
        watch: PeerWatch,
        beat: Heartbeat,
        tally: Tally,
        grace: float,
        lease_grace: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("fates", tally)
        self._watch = watch
        self._beat = beat
        self._grace = grace
        self._lease_grace = lease_grace
        self._now = now
        self._lock = threading.Lock()
        self._fates: dict[HostId, Fate] = {}
        self._respites: dict[HostId, float] = {}
        self._lost: frozenset[HostId] = frozenset()
        self._dead: frozenset[HostId] = frozenset()
        self._found: set[HostId] = set()
        self._told: set[HostId] = set()
        self._suspected: frozenset[HostId] = frozenset()
        self._news = threading.Event()
        #: Called with a host whose rows are to go, and with one that was lost and is there again.
        self.on_lost: Callable[[HostId], None] = lambda _: None
        self.on_found: Callable[[HostId], None] = lambda _: None
        #: Called when a host is no longer what it was: alive, pending, cut off, dead.
        self.on_fate: Callable[[], None] = lambda: None
        #: Called when other hosts are dead than were.
        self.on_dead: Callable[[], None] = lambda: None
        #: Called when a dead host's addresses may be freed.
        self.on_expired: Callable[[], None] = lambda: None

    def wake(self) -> None:
        self._news.set()

    def round(self) -> None:
        self._news.wait(TICK)
        self._news.clear()
        if not self.stopping.is_set():
            self.step()

    # -- asked by others -------------------------------------------------------------------------------------------

    def fate(self, host: HostId) -> Fate | None:
        with self._lock:
            return self._fates.get(host)

    def all(self) -> dict[HostId, Fate]:
        with self._lock:
            return dict(self._fates)

    def lost(self) -> frozenset[HostId]:
        """Hosts that have been dead for the grace: they have no rows here."""
        with self._lock:
            return self._lost

    def is_settled(self, host: HostId) -> bool:
        """Has the host been alive long enough to have published all that it has?"""
        fate = self.fate(host)
        return fate is not None and fate.state is State.ALIVE and self._now() - fate.since >= SETTLED

    def is_away(self, host: HostId) -> bool:
        """Has it no session, whatever became of it?"""
        fate = self.fate(host)
        return fate is not None and fate.state is not State.ALIVE

    def dead(self) -> frozenset[HostId]:
        """Hosts that are dead, for however short a time: nobody is told their names."""
        with self._lock:
            return self._dead

    def is_dead(self, host: HostId) -> bool:
        fate = self.fate(host)
        return fate is not None and fate.state is State.DEAD

    def is_gone(self, host: HostId) -> bool:
        """Is it dead, and without a session in the store as of now? Raises Unavailable.

        Who was cut off from the store knows for a moment only who was there before. What is taken from a host at once,
        without a grace, is not taken on that.
        """
        return self.is_dead(host) and not self._watch.is_present(host)

    def expired(self) -> set[HostId]:
        """Hosts that have been dead for the lease grace, and as long unheard by anybody else."""
        now = self._now()
        with self._lock:
            since = {host: max(fate.since, self._respites.get(host, fate.since)) for host, fate in self._fates.items()}
            return {
                host
                for host, fate in self._fates.items()
                if fate.state is State.DEAD and now - since[host] >= self._lease_grace
            }

    def cut_off(self) -> set[HostId]:
        return {host for host, fate in self.all().items() if fate.state is State.CUT_OFF}

    def respite(self, host: HostId) -> None:
        """Somebody else hears the host: the lease grace begins anew. It stays dead, and without rows, to this one."""
        with self._lock:
            self._respites[host] = self._now()

    # -- the thread ------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Judge all hosts that share an overlay with this one, and act on what changed. Raises Unavailable.

        A host that is found again is read from the store, in a later step where that is away.
        """
        known, now = self._watch.known, self._now()
        if known.present is None:
            return
        sharing = self._watch.sharing()
        suspected = frozenset(sharing.keys() - known.present)
        if suspected != self._suspected:
            self._suspected = suspected
            self._beat.suspect(suspected)
        with self._lock:
            before, lost_before, dead_before = self._fates, self._lost, self._dead
            after = {host: self._judge(host, known.present, now) for host in sharing}
            lost = frozenset(host for host, fate in after.items() if fate.dead_for(now) >= self._grace)
            self._fates, self._lost = after, lost
            self._dead = frozenset(host for host, fate in after.items() if fate.state is State.DEAD)
            self._respites = {h: at for h, at in self._respites.items() if h in after and after[h].state is State.DEAD}
            others_dead = self._dead != dead_before
        for host, fate in after.items():
            self._tell(host, before.get(host), fate)
        if others_dead:
            self.on_dead()
        self._wake_for_the_dead()
        for host in lost - lost_before:
            self.on_lost(host)
        self._found = (self._found | (lost_before - lost)) - lost
        for host in tuple(self._found):
            self.on_found(host)
            self._found.discard(host)

    def _wake_for_the_dead(self) -> None:
        """Once per host: its lease grace has just ended."""
        expired = self.expired()
        if expired - self._told:
            self.on_expired()
        self._told = expired

    def _judge(self, host: HostId, present: frozenset[HostId], now: float) -> Fate:
        pulse = self._beat.pulse(host)
        return judge(self._fates.get(host), host in present, pulse.silent, pulse.heard, now)

    def _tell(self, host: HostId, before: Fate | None, after: Fate) -> None:
        if before is not None and before.state is after.state:
            return
        self.tally.add("fates", after.state.value)
        self.on_fate()
        if before is not None or after.state is not State.ALIVE:
            name = self._watch.known.names.get(host, host.short)
            log.log(
                logging.ERROR if after.state is State.DEAD else logging.WARNING,
                "host %s is %s%s",
                name,
                after.state.value,
                f", it was {before.state.value}" if before else "",
            )
