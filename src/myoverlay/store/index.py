"""The tutorial's keys at one place, all of them and whoever wrote them: for who knows no overlay of ours.

Our own hosts believe each other's lists and not this index; somebody who has nothing but a place has nothing better.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from myoverlay.naming import check_prefix
from myoverlay.store import Entry, Reset, Store, Unchanged
from myoverlay.store.pooled import arp_key, fib_key
from myoverlay.store.records import Row, read_row
from myoverlay.values import Address, Mac, Peer


class Pairs(msgspec.Struct, frozen=True):
    """Everything at a store's index: complete pairs of `arp/` and `fib/`, and all of `fib/`."""

    peers: tuple[Peer, ...]
    vteps: Mapping[Mac, Address]
    index: int


class Index:
    """Reads `<place>/arp/<ip>` and `<place>/fib/<mac>`. Every method may raise Unavailable.

    Keys that say nothing sensible are passed over, and named in `quarantine`.
    """

    def __init__(self, store: Store, place: str) -> None:
        self._store = store
        self.place = check_prefix(place)
        self.quarantine: dict[str, str] = {}

    def wait(self, index: int, *, timeout: float) -> Pairs | Unchanged | Reset:
        """Wait until a key changed after `index` (0: answer at once); costs all of them at every change."""
        seen = self._store.wait(f"{self.place}/", index, timeout=timeout)
        if isinstance(seen, Unchanged | Reset):
            return seen
        self.quarantine = {}
        macs: dict[Address, Mac] = {}
        vteps: dict[Mac, Address] = {}
        for row in map(self._read, seen.entries):
            if row is None:
                continue
            if isinstance(row[0], Mac):
                vteps[row[0]] = Address(row[1])
            else:
                macs[row[0]] = Mac(row[1])
        peers = tuple(Peer(address=a, mac=m, vtep=vteps[m]) for a, m in macs.items() if m in vteps)
        return Pairs(peers, vteps, seen.index)

    def lookup(self, address: Address, *, timeout: float) -> Peer | None:
        """Who has the address: two reads. None where a key is missing or bad."""
        row = self._get(arp_key(self.place, address), timeout)
        if row is None:
            return None
        mac = Mac(row[1])
        vtep = self.lookup_mac(mac, timeout=timeout)
        return Peer(address=address, mac=mac, vtep=vtep) if vtep is not None else None

    def lookup_mac(self, mac: Mac, *, timeout: float) -> Address | None:
        """Behind which VTEP a MAC is."""
        row = self._get(fib_key(self.place, mac), timeout)
        return Address(row[1]) if row is not None else None

    def _get(self, key: str, timeout: float) -> Row | None:
        entry = self._store.get(key, timeout=timeout)
        return self._read(entry) if entry is not None else None

    def _read(self, entry: Entry) -> Row | None:
        try:
            row = read_row(self.place, entry)
            if row is not None and not isinstance(row[0], Mac) and not row[0].is_unicast:
                raise ValueError(f"{row[0]} is no host's address")
        except ValueError as error:
            if len(self.quarantine) < 1000:
                self.quarantine[entry.key] = str(error)
            return None
        return row
