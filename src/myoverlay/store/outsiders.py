"""An outsider's own records: two plain keys per address, as anybody with `curl` could PUT them, but together.

Ours are left alone: a key that carries `MARK` belongs to a host that runs the plugin.
"""

from __future__ import annotations

import msgspec

from myoverlay.errors import Clash
from myoverlay.naming import check_prefix
from myoverlay.store import Check, Conflict, Delete, Entry, Op, Put, Store
from myoverlay.store.pooled import MARK, arp_key, fib_key
from myoverlay.values import Address, Mac


class Line(msgspec.Struct, frozen=True):
    """One address as the records tell it. Texts are as they were written; `vtep` is None where `fib/` has no key."""

    address: str
    mac: str
    vtep: str | None
    plugin: bool


class Outsider:
    """Writes records in the tutorial's format at one place. Every method may raise Unavailable."""

    def __init__(self, store: Store, place: str) -> None:
        self._store = store
        self._place = check_prefix(place)

    def lines(self) -> list[Line]:
        """All addresses at the place, and MACs that nobody has an address for (with an empty one)."""
        found = {entry.key: entry for entry in self._store.list(f"{self._place}/").entries}
        arps = {key.rpartition("/")[2]: e for key, e in found.items() if key.startswith(f"{self._place}/arp/")}
        fibs = {key.rpartition("/")[2]: e for key, e in found.items() if key.startswith(f"{self._place}/fib/")}
        lines = []
        for address, arp in arps.items():
            fib = fibs.get(_text(arp))
            lines.append(Line(address, _text(arp), _text(fib) if fib else None, arp.flags == MARK))
        named = {line.mac for line in lines}
        lines += [Line("", mac, _text(fib), fib.flags == MARK) for mac, fib in fibs.items() if mac not in named]
        return lines

    def add(self, address: Address, mac: Mac, vtep: Address, *, replace: bool = False) -> bool:
        """Write both keys in one transaction; False where they say so already.

        Raises Clash where a key says something else (unless `replace`), or is a plugin host's (always).
        """
        wanted = {arp_key(self._place, address): mac.encode(), fib_key(self._place, mac): vtep.encode()}
        there = self._store.get_many(list(wanted))
        ops: list[Op] = []
        for key, value in wanted.items():
            entry = there.get(key)
            same = entry is not None and _text(entry) == value.decode()
            if entry is not None and entry.flags == MARK:
                raise Clash(f"{key} is a record of a host that runs the plugin ({_text(entry)}): it is left alone")
            if entry is not None and not same and not replace:
                raise Clash(f"{key} says {_text(entry)}, not {value.decode()}: --replace writes over it")
            index = entry.index if entry is not None else 0
            ops.append(Check(key, index) if same else Put(key, value, index=index))
        if all(isinstance(op, Check) for op in ops):
            return False
        self._commit(ops, address)
        return True

    def remove(self, address: Address) -> bool:
        """Delete the address's key, and its MAC's where no other address has that; False where there was none.

        Raises Clash where it is a plugin host's.
        """
        arp = self._store.get(arp_key(self._place, address))
        if arp is None:
            return False
        if arp.flags == MARK:
            raise Clash(f"{arp.key} is a record of a host that runs the plugin: that host takes it away")
        ops: list[Op] = [Delete(arp.key, arp.index)]
        mac = _mac(_text(arp))
        fib = self._store.get(fib_key(self._place, mac)) if mac else None
        others = [line for line in self.lines() if line.mac == mac and line.address != address]
        if fib is not None and fib.flags != MARK and not others:
            ops.append(Delete(fib.key, fib.index))
        self._commit(ops, address)
        return True

    def _commit(self, ops: list[Op], address: Address) -> None:
        if isinstance(self._store.commit(ops), Conflict):
            raise Clash(f"somebody else changed the records of {address} at the same time: look, and try again")


def _text(entry: Entry) -> str:
    """What a person would read: records may hold anything."""
    return entry.value[:64].decode("utf-8", "replace").strip()


def _mac(text: str) -> Mac | None:
    try:
        return Mac(text)
    except ValueError:
        return None
