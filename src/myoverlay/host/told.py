"""What the store holds of this host's records, by what was read or written last."""

from __future__ import annotations

import threading

import msgspec

from myoverlay.store import MAX_OPS, Entry
from myoverlay.store.records import MAX_CLAIMS, Claim, Published
from myoverlay.store.rings import Ring
from myoverlay.store.typed import Held
from myoverlay.values import Address, HostList, Mac, OverlayName

#: An address and its MAC.
Own = tuple[Address, Mac]


class Known(msgspec.Struct):
    """What the store held of ours when we last looked or wrote."""

    listed: Held[HostList] | None
    ring: Held[Ring]
    entries: dict[str, Entry]

    @property
    def granted(self) -> frozenset[Own]:
        """What was nobody else's when this host claimed it, by its own list, which it alone writes."""
        if self.listed is None:
            return frozenset()
        listed = self.listed.value
        return frozenset((r.address, r.mac) for r in listed.records if r.address not in listed.tentative)

    def note(self, done: Published, drops: list[Entry]) -> None:
        """Remember what the store holds now."""
        self.listed, self.ring = done.listed, done.ring
        for entry in drops:
            self.entries.pop(entry.key, None)
        for entry in done.claimed:
            self.entries[entry.key] = entry


class Told:
    """Which addresses the others are told of, by overlay: who gives one back is to withdraw it first.

    Written by the publisher, asked by others. `_lock` guards `_told` and is held for moments.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: dict[OverlayName, frozenset[Address] | None] = {}

    def begin(self, overlay: OverlayName) -> None:
        """What the store has of the overlay is about to be compared for the first time, if it was not before."""
        with self._lock:
            self._told.setdefault(overlay, None)

    def expect(self, listed: HostList) -> None:
        """The list is about to be written: what it has may be told from now on, whatever becomes of the write."""
        with self._lock:
            told = self._told.get(listed.overlay)
            self._told[listed.overlay] = told | _addresses(listed) if told is not None else None

    def note(self, listed: HostList) -> None:
        """The list stands in the store."""
        with self._lock:
            self._told[listed.overlay] = _addresses(listed)

    def forget(self, overlay: OverlayName) -> None:
        """The overlay is no longer on this host."""
        with self._lock:
            self._told.pop(overlay, None)

    def has(self, overlay: OverlayName, address: Address) -> bool:
        """May the others be told of the address? Yes, until the overlay was compared once."""
        with self._lock:
            told = self._told.get(overlay, frozenset())
            return told is None or address in told


def _addresses(listed: HostList) -> frozenset[Address]:
    return frozenset(record.address for record in listed.records)


def first_chunk(claims: list[Claim], drops: list[Entry]) -> tuple[list[Claim], list[Entry], list[Claim]]:
    """As much of the index as fits into one commit beside the list and the ring, and the claims that come later."""
    now = claims[:MAX_CLAIMS]
    return now, drops[: (MAX_OPS - 2 - 2 * len(now)) // 2], claims[MAX_CLAIMS:]  # a delete counts twice
