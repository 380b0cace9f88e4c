"""What each host sees of the others, as the store holds it while somebody looks.

    <prefix>/incarnation/looks/<host>   that this host looks; hosts wait there for questions of all kinds
    <prefix>/outlooks/<host>            what a host sees, written by it alone, for all who look

One who looks costs each other host one write for each new question, and itself a few listings, however many pages show
it. When nobody looks any more both kinds of keys go.
"""

from __future__ import annotations

from collections.abc import Iterable

from myoverlay.outlook import Look, Outlook
from myoverlay.store import Check, Conflict, Delete, Entry, Put
from myoverlay.store.typed import Held, Typed, tail
from myoverlay.values import HostId, encode


class OutlookRecords(Typed):
    """Typed reads and writes for one host. Every method may raise Unavailable."""

    def _look_key(self, host: str) -> str:
        return self.key("incarnation", "looks", host)

    def _told_key(self, host: str) -> str:
        return self.key("outlooks", host)

    def ask(self, look: Look, *, timeout: float = 3.0) -> None:
        """Say that this host looks, or what it wants to see now: nobody else writes that key."""
        self.store.commit([Put(self._look_key(self.me), encode(look))], timeout=timeout)

    def end(self, *, timeout: float = 3.0) -> None:
        """This host looks no more."""
        self._drop(self._look_key(self.me), timeout)

    def looks(self, entries: Iterable[Entry]) -> dict[HostId, Held[Look]]:
        """Who looks, in what was found below `incarnation`; whatever else lies there is passed over."""
        found = {}
        for entry in entries:
            held = self.read(Look, entry) if entry.key == self._look_key(tail(entry.key)) else None
            held = self.named(entry, held.value.asker if held else "", held)
            if held is not None:
                found[held.value.asker] = held
        return found

    def end_of(self, host: HostId, index: int, *, timeout: float = 3.0) -> None:
        """Another host's question that nobody renews, unless it was renewed meanwhile."""
        self.store.commit([Delete(self._look_key(host), index)], timeout=timeout)

    def tell(self, outlook: Outlook, look: Held[Look], *, timeout: float = 3.0) -> bool:
        """What this host sees; False where that is asked no more, or anew: no answer outlives its question."""
        asked = Check(self._look_key(look.value.asker), look.index)
        put = Put(self._told_key(self.me), encode(outlook))
        return not isinstance(self.store.commit([asked, put], timeout=timeout), Conflict)

    def told(self, *, timeout: float = 3.0) -> dict[HostId, Held[Outlook]]:
        """What all hosts have told."""
        entries = self.store.list(self._told_key(""), timeout=timeout).entries
        return self.by_host(Outlook, self.direct(entries, "outlooks"))

    def untell(self, *, timeout: float = 3.0) -> None:
        """Nobody looks: what this host told goes."""
        self._drop(self._told_key(self.me), timeout)

    def forget(self, host: HostId, index: int, *, timeout: float = 3.0) -> None:
        """What a host told that is not there any more to take it back."""
        self.store.commit([Delete(self._told_key(host), index)], timeout=timeout)

    def _drop(self, key: str, timeout: float) -> None:
        entry = self.store.get(key, timeout=timeout)
        if entry is not None:
            self.store.commit([Delete(entry.key, entry.index)], timeout=timeout)
