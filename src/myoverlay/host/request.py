"""What `docker network create` asks of this host, and the network that it becomes."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from myoverlay.plan import egress
from myoverlay.plan.definition import Options
from myoverlay.values import Address, Definition, Network, PoolUse, Subnet


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What `docker network create` asks for. `egress`: its containers reach the outside by the overlay's gateway."""

    network: str
    options: Options
    subnet: Subnet
    gateway: Address | None
    internal: bool
    egress: bool = False

    def network_of(
        self, definition: Definition, vtep: Address, underlay: str, use: PoolUse | None, others: Iterable[Network]
    ) -> Network:
        """The network on an overlay that is defined so. `others`: those of this host. Raises Refused."""
        outsiders = self.options.outsiders
        return Network(
            network=self.network,
            overlay=definition.overlay,
            subnet=definition.subnet,
            vtep=vtep,
            underlay=underlay,
            definition=definition,
            internal=self.internal,
            outsiders=definition.records is not None if outsiders is None else outsiders,
            pool=use.pool if use else None,
            asked=self.options.vtep or "",
            egress=egress.choose(one.egress for one in others) if self.egress else None,
        )
