"""An overlay as its names are answered from: this host's endpoints, and the other hosts' by their lists."""

from __future__ import annotations

from collections.abc import Callable

from myoverlay.host.local import LocalOverlay
from myoverlay.host.view import View
from myoverlay.plan import zone
from myoverlay.plan.zone import Zone
from myoverlay.values import Endpoint, HostId


class Known:
    """What a zone is made of, to see whether it would be another. A view is swapped whole, so its identity tells it."""

    def __init__(self, local: LocalOverlay, is_dead: Callable[[HostId], bool]) -> None:
        self.view: View = local.view
        self.endpoints: list[Endpoint] = [one for one in local.endpoints() if one.joined]
        self.dead = frozenset(host for host in self.view.lists or () if is_dead(host))

    def differs(self, other: Known | None) -> bool:
        if other is None or other.view is not self.view:
            return True
        return (other.endpoints, other.dead) != (self.endpoints, self.dead)


def zone_of(local: LocalOverlay, known: Known) -> Zone:
    """Of several hosts that list an address the one that has it is heard; of a dead one nobody is answered."""
    far: dict[str, tuple[str, ...]] = {}
    gone: list[str] = []
    for host, held in (known.view.lists or {}).items():
        for record in held.value.records:
            peer = known.view.peers.get(record.address)
            if peer is None or peer.host != host or peer.generation != record.generation:
                continue
            if host in known.dead:
                gone += record.names
            else:
                far[record.address] = record.names
    own = [(one.address, one.names, one.sandbox) for one in known.endpoints]
    network = local.network
    return Zone(
        overlay=network.overlay,
        subnet=network.subnet,
        internal=network.internal,
        ends=zone.ends_of(own, far),
        gone=tuple(gone),
    )
