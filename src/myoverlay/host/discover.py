"""What the others do: one watch per overlay, so that peers are programmed before anybody asks.

A watcher blocks on the small rings of changes and fetches only the lists of the hosts named there: one change costs it
the rings and that host's list, whatever the size of the overlay. It lists everything only at start, when a ring no
longer tells what was missed, and when the store's index went backwards. In between it looks slowly at who there is, and
reads some lists again: of a large overlay not all at once, for a thousand hosts that did would ask Consul for 44 MB/s.
"""

from __future__ import annotations

import bisect
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from myoverlay.host.epoch import Epoch
from myoverlay.host.local import LocalOverlay
from myoverlay.host.loop import COALESCE, WAIT, Loop
from myoverlay.host.peers import SETTLED
from myoverlay.host.view import View
from myoverlay.plan import believe
from myoverlay.store import Reset, Unchanged
from myoverlay.store.hostlists import Known
from myoverlay.store.records import Records
from myoverlay.store.rings import Ring
from myoverlay.store.typed import Held
from myoverlay.tally import Tally
from myoverlay.values import HostId, HostList, OverlayName, Subnet

log = logging.getLogger(__name__)

Learned = Callable[[LocalOverlay, View, View], None]

#: It is looked again at who there is after this, seconds, and so many lists are read again: a transaction of reads.
RELIST, AT_ONCE = 300.0, 64
#: Hosts and records of an overlay that is read whole with any question about it: some 25 kB at most.
FEW_HOSTS, FEW_RECORDS = 4, 256
#: And after this where somebody's list is missing, seconds.
SOON = 10.0
_FIRST_LOOK = 3.0


class Watch(Loop):
    """Follows the lists of the hosts of one overlay."""

    def __init__(
        self,
        local: LocalOverlay,
        records: Records,
        epoch: Epoch,
        lost: Callable[[], Collection[HostId]],
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
        settled: Callable[[HostId], bool] = lambda _: False,
        away: Callable[[HostId], bool] = lambda _: False,
        dead: Callable[[HostId], bool] = lambda _: False,
        on_asked: Callable[[Subnet], None] = lambda _: None,
        on_learned: Learned = lambda *_: None,
    ) -> None:
        """`lost`: hosts that are dead; `settled`: has the host been there long enough to have published all it has?
        `away`: does it not reach the store? `dead`: does it not answer either?

        `on_asked`: called where another host wants an address that this one keeps in reserve.
        """
        super().__init__(f"watch-{local.network.overlay}", tally)
        self._settled = settled
        self._away, self._dead = away, dead
        self._on_asked = on_asked
        self._on_learned = on_learned
        self._asked = Ring()
        self._local = local
        self._records = records
        self._epoch = epoch
        self._lost = lost
        self._now = now
        self._index = 0
        self._anew = False
        self._rings: dict[str, Ring] = {}
        self._listed_at = 0.0
        #: The host whose list was read again last, in their order.
        self._reread = ""
        #: Whose list is no longer there, and who may have it still: looked at again soon, since an address that such a
        #: host keeps is nobody else's.
        self._missing: set[HostId] = set()
        #: When `_rings` and `_index` were read.
        self._read_at = now()
        #: When the store answered last, whatever it said.
        self.heard_at = now()

    def round(self) -> None:
        # An emptied store must not be listed before it is known to be one.
        self._epoch.looked.wait(_FIRST_LOOK)
        if self.step():
            self.stopping.wait(COALESCE)

    def begin_anew(self) -> None:
        """List everything at the next answer: the store lost something."""
        self._anew = True

    def judge(self) -> None:
        self._local.judge()

    def step(self) -> bool:
        """One answer of the store; True where it told of a change. Raises Unavailable."""
        overlay = self._local.network.overlay
        if self._anew or self._is_part():
            self._anew, self._index = False, 0
        fresh = self._index == 0
        if fresh and not self._local.listed.is_set():
            # The first listing of a run has nothing to be compared with: was a snapshot brought back just now?
            self._epoch.look()
        seen = self._records.changes(overlay, self._index, timeout=3.0 if fresh else self._patience())
        self.heard_at = self._now()
        if self.stopping.is_set():
            return False  # the overlay is left: its last holder takes the rings along, and that is no loss
        if isinstance(seen, Reset):
            log.warning("overlay %s: the store's index went back to %d; nothing is withdrawn", overlay, seen.index)
            self.tally.add("watch_rounds", "reset")
            self._index = 0
            self._went_back()
            return False
        if isinstance(seen, Unchanged):
            self.tally.add("watch_rounds", "unchanged")
            if self._is_due():
                self._look_again()
            elif self._missing:
                self.fetch(self._missing)
            return False
        follows = all(seen.rings.get(name, Ring()).follows(ring) for name, ring in self._rings.items())
        if not follows:
            log.warning("overlay %s: what the store tells of its changes is not what came of those it told", overlay)
            self._went_back()
        self._hear(seen.asked)
        changed = self._changed(seen.rings) if follows else None
        if fresh or changed is None:
            self.tally.add("watch_rounds", "listing")
            self._listed_at = self._now()
            changed = self._records.hosts_of(overlay) | set(self._local.view.lists or ())
        elif self._is_due():
            changed |= self._due()
        else:
            self.tally.add("watch_rounds", "change")
        self.fetch(changed | self._missing, anew=fresh)
        self._rings, self._index, self._read_at = seen.rings, seen.index, self._now()
        return not fresh

    def _patience(self) -> float:
        return WAIT if not self._missing else min(WAIT, SOON)

    def _went_back(self) -> None:
        """The store lost something. It gets its new identity at once: until then no host that comes back, and knows no
        other, can tell that the addresses which are free in it are not. Raises Unavailable.
        """
        self._epoch.went_back(self._read_at)
        self._epoch.look()

    def _is_due(self) -> bool:
        return self._now() - self._listed_at > RELIST

    def _look_again(self) -> None:
        """Nothing changed for long: everything is listed again, of a large overlay a part."""
        if len(self._local.view.lists or ()) <= AT_ONCE:
            self._index = 0
        else:
            self.fetch(self._due())

    def _due(self) -> set[HostId]:
        """Whose lists are read again: those that came or went unheard, and the next ones in turn."""
        known = (self._local.view.lists or {}).keys()
        names = self._records.hosts_of(self._local.network.overlay)
        self.tally.add("watch_rounds", "listing")
        self._listed_at = self._now()
        ordered = sorted(names)
        at = bisect.bisect(ordered, self._reread)
        turn = (ordered[at:] + ordered[:at])[:AT_ONCE]
        self._reread = turn[-1] if turn else ""
        return (names - known) | (known - names) | set(turn)

    def _hear(self, asked: Ring) -> None:
        missed, self._asked = asked.since(self._asked.last), asked
        if missed is None or self._records.me in missed:
            self._on_asked(self._local.network.subnet)

    def _is_part(self) -> bool:
        """Was what is known listed while the store was in doubt, and is it no longer?"""
        view = self._local.view
        return view.lists is not None and not view.whole and not self._epoch.in_doubt()

    def _changed(self, rings: dict[str, Ring]) -> set[HostId] | None:
        """The hosts that changed since the last answer; None where a ring does not go back that far."""
        hosts: set[HostId] = set()
        for name, ring in rings.items():
            missed = ring.since(self._rings.get(name, Ring()).last)
            if missed is None:
                return None
            hosts.update(missed)
        return hosts

    def fetch(self, hosts: Iterable[HostId], anew: bool = False) -> None:
        """Read these hosts' lists and program what they say. Hosts that are dead have no rows, whatever they left.

        A list that is no longer there withdraws nothing by itself, because the store may have lost it: its host has
        left where the overlay's definition is there and no longer names it, and where nothing is in doubt.
        """
        hosts = set(hosts) - {self._records.me}
        known = (self._local.view.lists or {}).keys()
        lost = set(self._lost())
        found = self._read(sorted(hosts - lost))
        gone = (hosts - lost - found.keys()) & known
        left = (gone - self._remaining(gone) if gone else gone) | (lost & known)
        self._missing = (self._missing - hosts) | (gone - left)
        self._take(found, anew, left)

    def at_hand(self) -> Known:
        """The lists of a small overlay's hosts, which are read along with any question; none of a large one."""
        lists = self._local.view.lists or {}
        few = len(lists) <= FEW_HOSTS and sum(len(held.value.records) for held in lists.values()) <= FEW_RECORDS
        lost = self._lost() if few else ()
        return {host: held for host, held in lists.items() if host not in lost} if few else {}

    def learn(self, found: Mapping[HostId, Held[HostList]]) -> None:
        """Program what lists say that were read along, those that are not known already: in a storm of questions for
        nobody it is the same each time, and who is known waits for the overlay's lock.
        """
        known = self._local.view.lists or {}
        news = {host: held for host, held in found.items() if host not in known or known[host].index != held.index}
        if news:
            self._take(news, False, set())

    def _take(self, found: Mapping[HostId, Held[HostList]], anew: bool, left: set[HostId]) -> None:
        doubt = self._epoch.in_doubt()
        before = self._local.view
        self._local.learn(found, anew, left, self._epoch.believed, doubt)
        self._on_learned(self._local, before, self._local.view)

    def _read(self, hosts: Sequence[HostId]) -> dict[HostId, Held[HostList]]:
        """Their lists, a transaction of reads after the other: each has its time.

        One that says what it said before is kept as it was: all of a large overlay twice would be 50 MB.
        """
        known = self._local.view.lists or {}
        found: dict[HostId, Held[HostList]] = {}
        for start in range(0, len(hosts), AT_ONCE):
            read = self._records.lists(self._local.network.overlay, hosts[start : start + AT_ONCE], known)
            for host, held in read.items():
                old = known.get(host)
                found[host] = held if old is None or old.value != held.value else Held(old.value, held.index)
        return found

    def _remaining(self, hosts: set[HostId]) -> set[HostId]:
        """Those of the hosts without a list that may still be part of the overlay."""
        held = self._records.definition(self._local.network.overlay)
        if held is None or self._epoch.in_doubt():
            return hosts
        return {host for host in hosts if host in held.value.holders or not self._vouched(host)}

    def _vouched(self, host: HostId) -> bool:
        """Was its list taken away, and not lost by the store: by the host itself, or by who buried it?

        It was where it was seen in the store as it is now, and where the host has been there long enough since the
        store lost something: a session lives on for 2 × TTL without its host.
        One that does not reach the store did not do it: the store lost it, or somebody who does not hear it has buried
        it. If it is dead here too that somebody was right, and its addresses are given to others.
        """
        held = (self._local.view.lists or {}).get(host)
        if self._away(host):
            return held is not None and held.value.incarnation == self._epoch.believed and self._dead(host)
        if self._settled(host) and self._epoch.lost_for() >= SETTLED:
            return True
        return held is not None and believe.withdraws(held.value, self._epoch.believed, doubt=False)


class OutsiderWatch(Loop):
    """Follows the tutorial's keys of one overlay, where outsiders are on."""

    def __init__(
        self,
        local: LocalOverlay,
        records: Records,
        tally: Tally,
        on_learned: Learned = lambda *_: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(f"outsiders-{local.network.overlay}", tally)
        self._on_learned = on_learned
        self._local = local
        self._records = records
        self._now = now
        self._index = 0
        self._anew, self._listed_at = False, now()

    def round(self) -> None:
        if self.step():
            self.stopping.wait(COALESCE)

    def begin_anew(self) -> None:
        """List everything at the next answer: the store lost something, and may tell of no change."""
        self._anew = True

    def step(self) -> bool:
        """One answer of the store; True where it told of a change. Raises Unavailable."""
        if self._anew or self._now() - self._listed_at > RELIST:
            self._anew, self._index = False, 0
        fresh = self._index == 0
        seen = self._records.outsiders(self._local.network.definition, self._index, timeout=3.0 if fresh else WAIT)
        if isinstance(seen, Reset):
            self.tally.add("watch_rounds", "reset")
            self._index = 0
        elif isinstance(seen, Unchanged):
            self.tally.add("watch_rounds", "unchanged")
        else:
            self.tally.add("watch_rounds", "change")
            before = self._local.view
            self._local.learn_outsiders(seen.peers)
            self._on_learned(self._local, before, self._local.view)
            self._index = seen.index
            self._listed_at = self._now()
            return not fresh
        return False


class Discovery:
    """The watches of this host's overlays. `_lock` guards the table."""

    def __init__(
        self,
        records: Records,
        epoch: Epoch,
        lost: Callable[[], Collection[HostId]],
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
        begin: Callable[[Loop], None] = Loop.start,
        settled: Callable[[HostId], bool] = lambda _: False,
        away: Callable[[HostId], bool] = lambda _: False,
        dead: Callable[[HostId], bool] = lambda _: False,
        on_asked: Callable[[Subnet], None] = lambda _: None,
    ) -> None:
        self._on_asked = on_asked
        self._settled = settled
        self._away, self._dead = away, dead
        self._records = records
        self._epoch = epoch
        self._lost = lost
        self._tally = tally
        self._now = now
        self._begin = begin
        self._lock = threading.Lock()
        self._loops: dict[str, tuple[Watch, list[Watch | OutsiderWatch]]] = {}
        #: Called with an overlay, and what was known of it before the store told of it and after: who waits for that
        #: first, who notes it afterwards.
        self.on_known: Learned = lambda *_: None
        self.on_learned: Learned = lambda *_: None
        #: Called with an overlay where somebody claims what another host has: it is to be told to others.
        self.on_accusing: Callable[[OverlayName], object] = lambda _: None

    def follow(self, local: LocalOverlay) -> None:
        """Watch an overlay from now on; one that is watched already goes on being so."""
        with self._lock:
            if local.network.network in self._loops:
                return
            watch = Watch(
                local, self._records, self._epoch, self._lost, self._tally, self._now, self._settled, self._away,
                self._dead, self._on_asked, self._tell,
            )  # fmt: skip
            loops: list[Watch | OutsiderWatch] = [watch]
            if local.network.outsiders:
                loops.append(OutsiderWatch(local, self._records, self._tally, self._tell, self._now))
            self._loops[local.network.network] = (watch, loops)
        for loop in loops:
            self._begin(loop)

    def _tell(self, local: LocalOverlay, before: View, after: View) -> None:
        self.on_known(local, before, after)
        self.on_learned(local, before, after)
        if after.claims.accuses() - before.claims.accuses():
            self.on_accusing(local.network.overlay)
        if (more := after.claims.undecided - before.claims.undecided) > 0:
            self._tally.add("undecided", by=more)
            log.error(
                "overlay %s: several living hosts claim %d more addresses or MACs each, and nobody tells who had them"
                " first: they have no rows here; find out who writes that",
                local.network.overlay, more,
            )  # fmt: skip

    def drop(self, local: LocalOverlay) -> None:
        with self._lock:
            _, loops = self._loops.pop(local.network.network, (None, []))
        for loop in loops:
            loop.cancel()

    def watch_of(self, local: LocalOverlay) -> Watch | None:
        with self._lock:
            found = self._loops.get(local.network.network)
        return found[0] if found else None

    def heard(self, local: LocalOverlay) -> float | None:
        """Seconds since the store answered the overlay's watch; None where it is not watched."""
        watch = self.watch_of(local)
        return self._now() - watch.heard_at if watch is not None else None

    def _watches(self) -> list[Watch]:
        with self._lock:
            return [watch for watch, _ in self._loops.values()]

    def loops(self) -> list[Watch | OutsiderWatch]:
        with self._lock:
            return [loop for _, group in self._loops.values() for loop in group]

    def begin_anew(self) -> None:
        """Have everything listed again: the store lost something."""
        for loop in self.loops():
            loop.begin_anew()

    def judge(self) -> None:
        """Other hosts are dead than were: what is claimed of theirs is judged anew."""
        for watch in self._watches():
            watch.judge()

    def revisit(self, host: HostId) -> None:
        """Read one host's lists again: it was found dead, or is there again. Raises Unavailable."""
        for watch in self._watches():
            watch.fetch([host])

    def cancel(self) -> None:
        """Ask all watches to end; closing the store wakes those that block in it."""
        for loop in self.loops():
            loop.cancel()

    def join(self, timeout: float) -> None:
        """Wait for the watches that were asked to end, `timeout` seconds for all together."""
        until = time.monotonic() + timeout
        for loop in self.loops():
            loop.join(max(0.0, until - time.monotonic()))
