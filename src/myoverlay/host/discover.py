"""What the others do: one watch per overlay, so that peers are programmed before anybody asks.

A watcher blocks on the small rings of changes and fetches only the lists of the hosts named there: one change costs it
the rings and that host's list, whatever the size of the overlay. It lists everything only at start, when a ring no
longer tells what was missed, when the store's index went backwards, and slowly in between.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from myoverlay.host.local import LocalOverlay
from myoverlay.host.loop import COALESCE, WAIT, Loop
from myoverlay.store import Reset, Unchanged
from myoverlay.store.records import Records, Ring
from myoverlay.tally import Tally
from myoverlay.values import HostId

log = logging.getLogger(__name__)

#: Everything is listed again after this, seconds.
RELIST = 300.0


class Watch(Loop):
    """Follows the lists of the hosts of one overlay."""

    def __init__(
        self, local: LocalOverlay, records: Records, tally: Tally, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(f"watch-{local.network.overlay}", tally)
        self._local = local
        self._records = records
        self._now = now
        self._index = 0
        self._rings: dict[str, Ring] = {}
        self._listed_at = 0.0

    def round(self) -> None:
        if self.step():
            self.stopping.wait(COALESCE)

    def step(self) -> bool:
        """One answer of the store; True where it told of a change. Raises Unavailable."""
        overlay = self._local.network.overlay
        fresh = self._index == 0
        seen = self._records.changes(overlay, self._index, timeout=3.0 if fresh else WAIT)
        if isinstance(seen, Reset):
            log.warning("overlay %s: the store's index went back to %d; nothing is withdrawn", overlay, seen.index)
            self.tally.add("watch_rounds", "reset")
            self._index = 0
            return False
        if isinstance(seen, Unchanged):
            self.tally.add("watch_rounds", "unchanged")
            if self._now() - self._listed_at > RELIST:
                self._index = 0
            return False
        changed = self._changed(seen.rings)
        if fresh or changed is None or self._now() - self._listed_at > RELIST:
            self.tally.add("watch_rounds", "listing")
            self._listed_at = self._now()
            changed = self._records.hosts_of(overlay) | set(self._local.view.lists or ())
        else:
            self.tally.add("watch_rounds", "change")
        self.fetch(changed, anew=fresh)
        self._rings, self._index = seen.rings, seen.index
        return not fresh

    def _changed(self, rings: dict[str, Ring]) -> set[HostId] | None:
        """The hosts that changed since the last answer; None where a ring is gone or does not go back that far."""
        if self._rings.keys() - rings.keys():
            return None
        hosts: set[HostId] = set()
        for name, ring in rings.items():
            missed = ring.since(self._rings.get(name, Ring()).last)
            if missed is None:
                return None
            hosts.update(missed)
        return hosts

    def fetch(self, hosts: Iterable[HostId], anew: bool = False) -> None:
        """Read these hosts' lists and program what they say.

        A list that is no longer there withdraws nothing by itself, because the store may have lost it: its host has
        left where the overlay's definition is there and no longer names it.
        """
        hosts = set(hosts) - {self._records.me}
        overlay = self._local.network.overlay
        found = self._records.lists(overlay, hosts) if hosts else {}
        left = (hosts - found.keys()) & set(self._local.view.lists or ())
        if left:
            held = self._records.definition(overlay)
            left = left - set(held.value.holders) if held is not None else set()
        self._local.learn(found, anew, left)


class OutsiderWatch(Loop):
    """Follows the tutorial's keys of one overlay, where outsiders are on."""

    def __init__(self, local: LocalOverlay, records: Records, tally: Tally) -> None:
        super().__init__(f"outsiders-{local.network.overlay}", tally)
        self._local = local
        self._records = records
        self._index = 0

    def round(self) -> None:
        if self.step():
            self.stopping.wait(COALESCE)

    def step(self) -> bool:
        """One answer of the store; True where it told of a change. Raises Unavailable."""
        fresh = self._index == 0
        seen = self._records.outsiders(self._local.network.definition, self._index, timeout=3.0 if fresh else WAIT)
        if isinstance(seen, Reset):
            self.tally.add("watch_rounds", "reset")
            self._index = 0
        elif isinstance(seen, Unchanged):
            self.tally.add("watch_rounds", "unchanged")
        else:
            self.tally.add("watch_rounds", "change")
            self._local.learn_outsiders(seen.peers)
            self._index = seen.index
            return not fresh
        return False


class Discovery:
    """The watches of this host's overlays. `_lock` guards the table."""

    def __init__(
        self,
        records: Records,
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
        begin: Callable[[Loop], None] = Loop.start,
    ) -> None:
        self._records = records
        self._tally = tally
        self._now = now
        self._begin = begin
        self._lock = threading.Lock()
        self._loops: dict[str, tuple[Watch, list[Loop]]] = {}

    def follow(self, local: LocalOverlay) -> None:
        """Watch an overlay from now on; one that is watched already goes on being so."""
        with self._lock:
            if local.network.network in self._loops:
                return
            watch = Watch(local, self._records, self._tally, self._now)
            loops: list[Loop] = [watch]
            if local.network.outsiders:
                loops.append(OutsiderWatch(local, self._records, self._tally))
            self._loops[local.network.network] = (watch, loops)
        for loop in loops:
            self._begin(loop)

    def drop(self, local: LocalOverlay) -> None:
        with self._lock:
            _, loops = self._loops.pop(local.network.network, (None, []))
        for loop in loops:
            loop.cancel()

    def watch_of(self, local: LocalOverlay) -> Watch | None:
        with self._lock:
            found = self._loops.get(local.network.network)
        return found[0] if found else None

    def cancel(self) -> None:
        """Ask all watches to end; closing the store wakes those that block in it."""
        with self._lock:
            loops = [loop for _, group in self._loops.values() for loop in group]
        for loop in loops:
            loop.cancel()

    def join(self, timeout: float) -> None:
        """Wait for the watches that were asked to end, `timeout` seconds for all together."""
        until = time.monotonic() + timeout
        with self._lock:
            loops = [loop for _, group in self._loops.values() for loop in group]
        for loop in loops:
            loop.join(max(0.0, until - time.monotonic()))
