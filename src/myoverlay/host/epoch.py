"""Whether the store still holds what it held: it may come back emptied, restored from a snapshot, or as another one.

The store carries a random id and a counter (`incarnation`), and each host remembers both. Where the id is another or
gone, or the counter lower than remembered, or a watch saw the store's index go backwards, something was lost. The first
host that sees it gives the store a new id; every other one learns of it by that. Then each host writes what it holds
again, under the new id. Until the others have done so too, or the grace ended, nothing that is merely missing counts as
withdrawn, and no address is given out but from the reserve. While the store is away nobody can write: that time does
not count as grace.

An incarnation that cannot be read tells of no loss: somebody wrote over it. It is written again from memory.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from myoverlay.host.journal import Journal
from myoverlay.plan import believe
from myoverlay.store.presence import GARBLED, Incarnation, Presence
from myoverlay.store.typed import Held
from myoverlay.tally import Tally
from myoverlay.values import COUNT_LIMIT, HostId, HostList

log = logging.getLogger(__name__)

#: The counter is raised when nobody did for this long, seconds: a snapshot older than that is recognised by it.
RAISE = 30.0
#: A counter that is written from memory is ahead of any that another host may remember: the raises of a year.
LEAP = 1 << 20
#: A look is made every few seconds; one that is longer ago than this, seconds, says that the store is away.
LAPSE = 10.0
_NOBODY = "?"


class Epoch:
    """The store's incarnation as this host goes by it. `_lock` guards everything but the collaborators."""

    def __init__(
        self,
        journal: Journal,
        presence: Presence,
        tally: Tally,
        grace: float,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._wall = wall
        self._journal = journal
        self._presence = presence
        self._tally = tally
        self._grace = grace
        self._now = now
        self._lock = threading.Lock()
        # One look at a time, or one host could give the store two ids. It guards nothing and is held while the store is
        # asked: whoever takes it holds no other lock.
        self._looking = threading.Lock()
        self._id, self._count, self._born = journal.incarnation or ("", 0, 0)
        self._vouched = journal.vouched
        self._went_back = False
        # A restart within the doubt begins the grace anew: nobody knows how much of it is over.
        self._doubt_since = now() if self._id and journal.doubted == self._id else None
        self._changed_at = now()
        #: When it was read last, in this run; since when it cannot be.
        self._read_at: float | None = None
        self._garbled_since: float | None = None
        #: Set once the incarnation was read.
        self.looked = threading.Event()
        #: Called when the store was found to have lost something.
        self.on_doubt: Callable[[], None] = lambda: None

    @property
    def id(self) -> str:
        """The store's id; "" before it was read for the first time."""
        with self._lock:
            return self._id

    def went_back(self, known_since: float | None = None) -> None:
        """A watch saw the store's index go backwards, to before one that it had known since then.

        While a loss is known already that is an echo of it, unless what went back was read after that.
        """
        with self._lock:
            news = known_since is not None and self._doubt_since is not None and known_since > self._doubt_since
            if news or not self._is_young():
                self._went_back = True

    def in_doubt(self) -> bool:
        """Has the store been there for less than the grace since it lost something? (Before a look nobody can tell.)"""
        if not self.looked.is_set():
            return True
        with self._lock:
            return self._went_back or self._is_young()

    def lost_for(self) -> float:
        """Seconds that the store has been there since it lost something; without end where it did not in this run."""
        with self._lock:
            return self._age()

    def _is_young(self) -> bool:
        return self._age() < self._grace

    def _age(self) -> float:
        return math.inf if self._doubt_since is None else self._now() - self._unread() - self._doubt_since

    def _unread(self) -> float:
        """Seconds of the doubt for which the store has been away by now."""
        assert self._doubt_since is not None
        seen = self._doubt_since if self._read_at is None else self._read_at
        return max(0.0, self._now() - seen - LAPSE)

    @property
    def believed(self) -> str:
        """The id under which a list is taken at its word. None is, from the moment a watch saw the store go back.

        Until it has a new id, lists that a snapshot brought back cannot be told from those of now.
        """
        with self._lock:
            return _NOBODY if self._went_back else self._id

    @property
    def vouched(self) -> str:
        """The incarnation under which this host knows that its pools and leases are in the store."""
        with self._lock:
            return self._vouched

    def vouch(self, incarnation: str) -> None:
        """All that this host holds was found in the store, or written there, under this id."""
        with self._lock:
            news, self._vouched = incarnation != self._vouched, incarnation
        if news:
            self._journal.vouched = incarnation

    def latest(self, known: HostList, read: HostList) -> HostList:
        """What a host's list says, of which `known` was known and `read` is what the store holds now."""
        return believe.latest(known, read, self.believed, self.in_doubt())

    def believes(self, listed: HostList) -> bool:
        """Does its host know what the store went through?"""
        return believe.withdraws(listed, self.believed, self.in_doubt())

    def waits_for(self, known: dict[HostId, str], lost: frozenset[HostId]) -> set[HostId] | None:
        """Which of the hosts known before have not published again; None where there is no doubt.

        `known` are the hosts with the incarnation that their list was written under; the `lost` are not waited for.
        While nobody at all is known (the plugin was started into the doubt) the whole grace is waited.
        """
        if not self.in_doubt():
            return None
        with self._lock:
            waiting = {host for host, under in known.items() if under != self._id and host not in lost}
        return waiting if waiting or not known else None

    def look(self) -> None:
        """Read the incarnation and compare it with what is remembered. Raises Unavailable."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        held = self._presence.incarnation()
        with self._lock:
            reason = self._loss(held)
            known = self._id
        if held is not None and held.value is GARBLED and reason is None:
            self._rewrite(held)
            return
        self._read()
        if reason is not None:
            self._begin(held, reason)
        elif held is None:
            fresh = self._fresh()
            if self._presence.write_incarnation(None, fresh):
                self._remember(fresh)
        elif held.value.id != known or held.value.count > self._count:
            self._remember(held.value)
        elif self._now() - self._changed_at >= RAISE and self._presence.write_incarnation(held, held.value.older()):
            self._remember(held.value.older())
        self.looked.set()
        if self._journal.doubted and not self.in_doubt():
            self._journal.doubted = ""

    def _read(self) -> None:
        """It was read just now: for how long it could not be before is no part of the grace."""
        with self._lock:
            if self._doubt_since is not None:
                self._doubt_since += self._unread()
            self._read_at, self._garbled_since = self._now(), None

    def _loss(self, held: Held[Incarnation] | None) -> str | None:
        """What tells that something was lost since this host last looked; None where nothing does."""
        if not self._id:
            return None
        if held is None:
            return "it was emptied"
        if held.value is GARBLED:
            return "its index went backwards" if self._went_back else None
        if held.value.id != self._id:
            return "it was replaced, or another host saw that it lost something"
        if held.value.count < self._count:
            return "it was restored from an older state"
        return "its index went backwards" if self._went_back else None

    def _rewrite(self, held: Held[Incarnation]) -> None:
        """Say again which store this is, where somebody wrote over it; the next look reads what stands there then.

        Whoever did not know it just now (at start, or back from being cut off) may know an id or a counter of long ago,
        which the others would take for a loss: it leaves them the time to write first.
        """
        now = self._now()
        if self._garbled_since is None:
            self._garbled_since = now
            log.warning("%s in the store cannot be read: it is written anew", self._presence.key("incarnation"))
        knows = self._read_at is not None and now - self._read_at < RAISE
        if knows or now - self._garbled_since >= RAISE:
            count = min(self._count + LEAP, COUNT_LIMIT)
            mine = Incarnation(id=self._id, count=count, born=self._born) if self._id else None
            self._presence.write_incarnation(held, mine or self._fresh())

    def _begin(self, held: Held[Incarnation] | None, reason: str) -> None:
        """Doubt begins: under the id that another host has given the store for it, else under a new one of ours."""
        current = held.value if held is not None else None
        if current is None or current is GARBLED or current.id == self._id or current.born <= self._born:
            # A snapshot from before the last loss has the id of then: its lists are not to be believed under it.
            current = self._fresh()
            if not self._presence.write_incarnation(held, current):
                # Another host was faster, and its id is seen in the next round; or what is read is not what is there.
                with self._lock:
                    self._went_back = True
                return
        with self._lock:
            self._doubt_since = self._now()
            self._went_back = False
        self._tally.add("doubts")
        self._journal.doubted = current.id
        log.error("the store lost something: %s; this host writes what it holds again, nothing is withdrawn", reason)
        self._remember(current)
        self.on_doubt()

    def _fresh(self) -> Incarnation:
        return Incarnation.fresh(max(self._born + 1, int(self._wall() * 1000)))

    def _remember(self, incarnation: Incarnation) -> None:
        self._journal.incarnation = (incarnation.id, incarnation.count, incarnation.born)
        with self._lock:
            self._id, self._count, self._born = incarnation.id, incarnation.count, incarnation.born
            self._changed_at = self._now()
