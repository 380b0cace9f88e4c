"""What to make of a host's own list when the store may have lost something. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from myoverlay.values import Definition, HostId, HostList, Peer, Record


def withdraws(read: HostList, incarnation: str, doubt: bool) -> bool:
    """Does what the list lacks count as withdrawn?

    It does in a list written under the store's present incarnation: its host knows what the store went through. One
    that was written under another may be an old one that a snapshot brought back. A list of an older version names no
    incarnation; it is taken at its word but in a doubt.
    """
    if not incarnation:
        return True
    return read.incarnation == incarnation or (not read.incarnation and not doubt)


def latest(known: HostList, read: HostList, incarnation: str, doubt: bool) -> HostList:
    """What a host's list says, of which `known` was known and `read` is what the store holds now.

    Of numbered ones the later one counts: a snapshot of a moment ago brings back an old one of the same incarnation. Of
    others that may be old both count together.
    """
    if known.serial and read.serial:
        return read if read.serial >= known.serial else known
    return read if withdraws(read, incarnation, doubt) else united(known, read)


def united(known: HostList, read: HostList) -> HostList:
    """Both lists of a host together: nothing goes, and of two records for an address the later one stays."""
    best: dict[str, Record] = {record.address: record for record in read.records}
    for record in known.records:
        other = best.get(record.address)
        if other is None or record.generation >= other.generation:
            best[record.address] = record
    records = tuple(sorted(best.values(), key=lambda record: record.address.number))
    return msgspec.structs.replace(known, records=records)


def believed(definition: Definition, lists: Mapping[HostId, HostList]) -> list[Peer]:
    """The peers that hosts' own lists tell of; a record that cannot be in the overlay is passed over."""
    peers = []
    for host, listed in lists.items():
        if not listed.vtep.is_unicast:
            continue
        for r in listed.records:
            if definition.subnet.is_host(r.address) and r.address != definition.gateway:
                vtep = listed.vtep
                peers.append(Peer(address=r.address, mac=r.mac, vtep=vtep, host=host, generation=r.generation))
    return peers
