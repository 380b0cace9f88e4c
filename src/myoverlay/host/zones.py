"""An overlay as its names are answered from: this host's endpoints, and the other hosts' by their lists."""

from __future__ import annotations

from collections.abc import Collection

from myoverlay.host.local import LocalOverlay
from myoverlay.host.view import View
from myoverlay.plan import zone
from myoverlay.plan.shared import apart, differing
from myoverlay.plan.zone import Change, End, Zone
from myoverlay.values import Address, Endpoint, HostId, Network, Record


class Known:
    """What a zone is made of, to see whether it would be another. A view is swapped whole, so its identity tells it."""

    def __init__(self, local: LocalOverlay, dead: Collection[HostId]) -> None:
        """`dead`: all hosts whose names are not answered, on whatever overlay."""
        self.view: View = local.view
        self.endpoints: list[Endpoint] = [one for one in local.endpoints() if one.joined]
        lists = self.view.lists or {}
        self.dead = frozenset(host for host in dead if host in lists)

    def differs(self, other: Known | None) -> bool:
        if other is None or other.view is not self.view:
            return True
        return (other.endpoints, other.dead) != (self.endpoints, self.dead)


def zone_of(network: Network, known: Known) -> Zone:
    """Of several hosts that list an address the one that has it is heard; of a dead one nobody is answered."""
    far: dict[str, tuple[str, ...]] = {}
    gone: list[str] = []
    for host in known.view.lists or ():
        for record in _records(known.view, host):
            if not _is_heard(known.view, host, record):
                continue
            if host in known.dead:
                gone += record.names
            else:
                far[record.address] = record.names
    own = [(one.address, one.names, one.sandbox) for one in known.endpoints]
    return Zone(
        overlay=network.overlay,
        subnet=network.subnet,
        internal=network.internal,
        ends=zone.ends_of(own, far),
        gone=tuple(gone),
    )


def change_of(network: Network, before: Known, known: Known) -> Change:
    """What makes the zone of `before` that of `known`: costs what is otherwise, and the lists that say so."""
    ends: list[End] = []
    went: list[str] = []
    gone: list[str] = []
    own = {one.address: one for one in known.endpoints}
    touched = _touched(before, known)
    names = _names(known.view, touched)
    for address in touched:
        mine, peer, named = own.get(address), known.view.peers.get(address), names.get(address, ())
        if peer is not None and peer.host in known.dead:
            gone += named
            named = ()
        if mine is not None:
            ends.append(End(address, mine.names, mine.sandbox))
        elif named:
            ends.append(End(address, named))
        else:
            went.append(address)
    return Change(network.overlay, tuple(ends), tuple(went), tuple(gone))


def _names(view: View, addresses: Collection[Address]) -> dict[Address, tuple[str, ...]]:
    """Those of these addresses: the lists of the hosts that have them are gone through once."""
    hosts = {peer.host for address in addresses if (peer := view.peers.get(address)) is not None}
    return {
        record.address: record.names
        for host in hosts
        if host is not None
        for record in _records(view, host)
        if record.address in addresses and _is_heard(view, host, record)
    }


def _touched(before: Known, known: Known) -> set[Address]:
    """The addresses where something may be otherwise: another peer, other names, another life."""
    old, new = before.view, known.view
    touched = differing(old.peers, new.peers)
    for host in differing(old.lists or {}, new.lists or {}):
        touched.update(record.address for part in apart(_records(old, host), _records(new, host)) for record in part)
    for host in before.dead ^ known.dead:
        touched |= {record.address for view in (old, new) for record in _records(view, host)}
    mine, ours = ({one.address: one for one in each.endpoints} for each in (before, known))
    return touched | {address for address in mine.keys() | ours.keys() if mine.get(address) != ours.get(address)}


def _records(view: View, host: HostId) -> tuple[Record, ...]:
    held = (view.lists or {}).get(host)
    return held.value.records if held is not None else ()


def _is_heard(view: View, host: HostId, record: Record) -> bool:
    """Is it by this record of the host that it has the address?"""
    peer = view.peers.get(record.address)
    return peer is not None and peer.host == host and peer.generation == record.generation
