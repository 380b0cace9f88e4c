"""Reading and writing the store in typed values: keys below our prefix, validation, quarantine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from myoverlay.errors import Unreadable
from myoverlay.store import Entry, Store
from myoverlay.values import HostId, decoder

T = TypeVar("T")


class OfHost(Protocol):
    """What a host says: it names itself."""

    @property
    def host(self) -> HostId: ...


H = TypeVar("H", bound=OfHost)
#: So many bad keys are remembered by name; more say nothing new.
_QUARANTINE = 1000
#: A key that was bad, and is still after so many seconds without having been read, counts again.
_ANEW = 60.0


class Held(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """A value and the index it was read at: what a compare-and-set needs."""

    value: T
    index: int


class Quarantine(dict[str, str]):
    """The keys that could not be read, and why. `on_bad` is called for each, and again when it is so anew."""

    def __init__(self, on_bad: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.at: dict[str, float] = {}
        self._counted: dict[str, str] = {}
        self._on_bad = on_bad

    def add(self, key: str, reason: str) -> None:
        """More than so many say nothing new, and are counted without being remembered."""
        now = time.monotonic()
        fresh = self._counted.get(key) != reason or now - self.at.get(key, 0.0) > _ANEW
        if len(self) < _QUARANTINE or key in self:
            self[key], self.at[key] = reason, now
        if len(self._counted) < _QUARANTINE:
            self._counted[key] = reason
        if fresh:
            self._on_bad()

    def forget(self, key: str) -> None:
        self.pop(key, None)
        self.at.pop(key, None)


class Typed:
    """Keys below one prefix of a store, as host `me` reads and writes them.

    Whatever is read is validated as if an enemy had written it: what does not fit is left out and named in
    `quarantine`, and never stops a reader.
    """

    def __init__(self, store: Store, prefix: str, me: HostId) -> None:
        self.store = store
        self.me = me
        # One for all that read from a daemon's store.
        self.quarantine: Quarantine = _of(store)
        self.prefix = prefix
        self._decoders: dict[type, Callable[[bytes], Any]] = {}

    def key(self, *parts: str | int) -> str:
        return "/".join((self.prefix, *(str(part) for part in parts)))

    def read(self, kind: type[T], entry: Entry | None, decode: Callable[[bytes], T] | None = None) -> Held[T] | None:
        """An entry as a `kind`; None where there is none, or a bad one. `decode`: in place of the kind's reader."""
        if entry is None:
            return None
        try:
            value = (decode or self._decoder(kind))(entry.value)
        except ValueError as error:
            self.distrust(entry.key, str(error))
            return None
        if self.quarantine:
            self.quarantine.forget(entry.key)  # somebody repaired it
        return Held(value, entry.index)

    def named(self, entry: Entry | None, name: str, held: Held[T] | None) -> Held[T] | None:
        """What was read, if its key ends in the name that it says itself."""
        if entry is not None and held is not None and tail(entry.key) != name:
            self.distrust(entry.key, f"it is about {name}")
            return None
        return held

    def direct(self, entries: Iterable[Entry], *place: str) -> Iterator[Entry]:
        """Those that lie right below a place. What lies deeper ends in another's name, and would be read as his."""
        below = self.key(*place, "")
        for entry in entries:
            if "/" in entry.key.removeprefix(below):
                self.distrust(entry.key, "it lies deeper than keys of its kind do")
            else:
                yield entry

    def by_host(self, kind: type[H], entries: Iterable[Entry]) -> dict[HostId, Held[H]]:
        """What hosts say, each under a key that ends in its id."""
        found = {}
        for entry in entries:
            held = self.read(kind, entry)
            held = self.named(entry, held.value.host if held else "", held)
            if held is not None:
                found[held.value.host] = held
        return found

    def firmly(self, entry: Entry | None, held: Held[T] | None) -> Held[T] | None:
        """What was read. Raises Unreadable where there is a key and nothing could be read from it.

        For calls that would create the key if it were absent: they would try until their deadline.
        """
        if entry is not None and held is None:
            reason = self.quarantine.get(entry.key, "it is not what it should be")
            raise Unreadable(f"the key {entry.key} in the store cannot be read ({reason}): repair or delete it")
        return held

    def distrust(self, key: str, reason: str) -> None:
        self.quarantine.add(key, reason)

    def unreadable(self, recent: float) -> dict[str, str]:
        """The keys that could not be read within so many seconds, and why. One that was deleted goes by itself."""
        now = time.monotonic()
        return {
            key: why for key, why in dict(self.quarantine).items() if now - self.quarantine.at.get(key, 0.0) < recent
        }

    def _decoder(self, kind: type[T]) -> Callable[[bytes], T]:
        if kind not in self._decoders:
            self._decoders[kind] = decoder(kind)
        return self._decoders[kind]


def tail(key: str) -> str:
    """The last word of a key."""
    return key.rpartition("/")[2]


def _of(store: Store) -> Quarantine:
    found = getattr(store, "quarantine", None)
    return found if isinstance(found, Quarantine) else Quarantine()
