"""An overlay as its names are answered from: this host's endpoints, and the other hosts' by their lists."""

from __future__ import annotations

from collections.abc import Collection, Iterable

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
        for record in _heard(known.view, host):
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
    heard: dict[HostId, dict[Address, Record]] = {}
    for address in _touched(before, known):
        peer, mine = known.view.peers.get(address), own.get(address)
        if mine is not None:
            ends.append(End(address, mine.names, mine.sandbox))
            continue
        names: tuple[str, ...] = ()
        if peer is not None and peer.host is not None:
            if peer.host not in heard:
                heard[peer.host] = {record.address: record for record in _heard(known.view, peer.host)}
            record = heard[peer.host].get(address)
            names = record.names if record is not None else ()
            if peer.host in known.dead:
                gone += names
                names = ()
        if names:
            ends.append(End(address, names))
        else:
            went.append(address)
    return Change(network.overlay, tuple(ends), tuple(went), tuple(gone))


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


def _heard(view: View, host: HostId) -> Iterable[Record]:
    """The host's records by which it has the address."""
    for record in _records(view, host):
        peer = view.peers.get(record.address)
        if peer is not None and peer.host == host and peer.generation == record.generation:
            yield record
