"""The hosts' own lists of their endpoints: the truth about them.

A list is read again with each change of it, and says nearly all that it said before. Of 100 records that are read anew
the checks take seven times what the JSON does, so a record that is written as before is the one of before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import msgspec

from myoverlay.store import Entry
from myoverlay.store.pooled import Pooled
from myoverlay.store.typed import Held
from myoverlay.values import Address, HostId, HostList, Mac, OverlayName, Record, decoder

#: The newest schema of a host's list that this version reads; a list says which it needs at least.
READER = 1
#: What is known of the hosts' lists.
Known = Mapping[HostId, Held[HostList]]
NOBODY: Known = MappingProxyType({})


class _Line(msgspec.Struct, frozen=True, gc=False):
    """A record as it is written, its words unchecked."""

    address: str
    mac: str
    generation: int = 0
    names: tuple[str, ...] = ()


class _Page(HostList, frozen=True, kw_only=True):
    """A list as it is written, its records unchecked."""

    records: tuple[_Line, ...] = ()  # type: ignore[assignment]


_read_whole = decoder(HostList)
_read_page = decoder(_Page)


def reader_after(before: HostList) -> Callable[[bytes], HostList]:
    """What reads a list as any reader does, and takes from the one before what both say alike."""
    return lambda raw: _read_after(before, raw)


def _read_after(before: HostList, raw: bytes) -> HostList:
    known: dict[str, Record] = {record.address: record for record in before.records}
    try:
        page = _read_page(raw)
        records = [
            one
            if (one := known.get(line.address)) is not None
            and one.mac == line.mac
            and one.generation == line.generation
            and one.names == line.names
            else _record(line)
            for line in page.records
        ]
    except ValueError:
        return _read_whole(raw)  # it says what is wrong, and where
    if _may_repeat_a_key(raw, len(records)):
        return _read_whole(raw)
    return HostList(**{**msgspec.structs.asdict(page), "records": tuple(records)})


def _may_repeat_a_key(raw: bytes, records: int) -> bool:
    """Of a key that is there twice the last counts, but the reader of the whole checks the others too: who knows the
    list of before must not believe one that nobody else does. A key may be written with `\\u`, which ours never are.
    """
    words = raw.count(b'"address"'), raw.count(b'"mac"'), raw.count(b'"records"')
    return b"\\" in raw or words[0] != records or words[1] != records or words[2] > 1


def _record(line: _Line) -> Record:
    return Record(address=Address(line.address), mac=Mac(line.mac), generation=line.generation, names=line.names)


class HostLists(Pooled):
    """What `Records` reads of the hosts' lists, and where they lie."""

    def list_key(self, host: HostId, overlay: OverlayName) -> str:
        return self.key("hosts", host, "overlays", overlay)

    def lists(
        self, overlay: OverlayName, hosts: Iterable[HostId], known: Known = NOBODY, *, timeout: float = 3.0
    ) -> dict[HostId, Held[HostList]]:
        """The hosts' own lists; a host that has none, or a bad one, is absent. `known`: what was read before."""
        keys = {self.list_key(host, overlay): host for host in hosts}
        return self.lists_among(self.store.get_many(tuple(keys), timeout=timeout), keys, overlay, known)

    def lists_among(
        self, entries: Mapping[str, Entry], keys: Mapping[str, HostId], overlay: OverlayName, known: Known = NOBODY
    ) -> dict[HostId, Held[HostList]]:
        """The lists among these entries; `keys` tells whose each is."""
        found = {}
        for key, host in keys.items():
            entry = entries.get(key)
            held = self._read_list(entry, host, overlay, known.get(host)) if entry is not None else None
            if held is not None:
                found[host] = held
        return found

    def own_list(self, overlay: OverlayName, vtep: Address, *, timeout: float = 3.0) -> Held[HostList] | None:
        """This host's own list. One that is bad is to be written over: it is read as an empty one of schema 0."""
        entry = self.store.get(self.list_key(self.me, overlay), timeout=timeout)
        if entry is None:
            return None
        bad = HostList(host=self.me, overlay=overlay, vtep=vtep, schema=0)
        return self._read_list(entry, self.me, overlay) or Held(bad, entry.index)

    def _read_list(
        self, entry: Entry, host: HostId, overlay: OverlayName, before: Held[HostList] | None = None
    ) -> Held[HostList] | None:
        held = self.read(HostList, entry, reader_after(before.value) if before is not None else None)
        if held is not None and (held.value.host != host or held.value.overlay != overlay):
            self.distrust(entry.key, "it is about another host or overlay")
            return None
        if held is not None and held.value.reader > READER:
            self.distrust(entry.key, f"it asks for a reader of schema {held.value.reader}, this one reads {READER}")
            return None
        return held

    def hosts_of(self, overlay: OverlayName, *, timeout: float = 3.0) -> set[HostId]:
        """The hosts that have a list for the overlay, by the names of the keys alone."""
        return {host for host, overlays in self.hosts_and_overlays(timeout=timeout).items() if overlay in overlays}

    def hosts_and_overlays(self, of: HostId | None = None, *, timeout: float = 3.0) -> dict[HostId, set[OverlayName]]:
        """All hosts that have a list (or one), with the overlays they have one for, by the names of the keys alone."""
        found: dict[HostId, set[OverlayName]] = {}
        below = self.key("hosts", of, "overlays", "") if of is not None else self.key("hosts", "")
        for key in self.store.keys(below, timeout=timeout).keys:
            host, _, rest = key.removeprefix(self.key("hosts", "")).partition("/")
            kind, _, overlay = rest.partition("/")
            if kind != "overlays":
                continue
            try:
                found.setdefault(HostId(host), set()).add(OverlayName(overlay))
            except ValueError as error:
                self.distrust(key, str(error))
        return found
