"""NetworkDriver.*: one function per method, each of them idempotent.

Docker forgets what it asked to delete whatever the answer is, so deleting what is unknown succeeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from myoverlay.docker import wire
from myoverlay.egress import DOCKER
from myoverlay.errors import Refused
from myoverlay.host.called import Called
from myoverlay.host.overlays import Overlays
from myoverlay.host.request import Request
from myoverlay.plan import definition as plan
from myoverlay.plan import egress, signposts
from myoverlay.values import Address, OverlayName, Subnet

Answer = dict[str, Any]

#: How long Docker waits for an endpoint's record to be in the store, and for the first listing of the peers.
PATIENCE = 0.5
#: Docker's word for a route that leads out of the interface itself.
_CONNECTED = 1


class Publishing(Protocol):
    """What Docker's calls need of the one who writes this host's records."""

    def offer(self, overlay: OverlayName) -> int: ...
    def wait(self, overlay: OverlayName, ticket: int, address: Address, patience: float) -> None: ...
    def pardon(self, overlay: OverlayName, address: Address) -> None: ...


#: Scope local: each host has its own network objects; what joins them is the overlay's name.
CAPABILITIES: Answer = {"Scope": "local", "ConnectivityScope": "global"}


class NetworkDriver:
    """The methods of the network driver, over the overlays of this host."""

    def __init__(
        self,
        overlays: Overlays,
        publisher: Publishing,
        called: Called,
        now: Callable[[], float] = time.time,
        egress: str = DOCKER,
    ) -> None:
        """`egress`: how containers of networks that do not say it reach the outside."""
        self._egress = egress
        self._overlays = overlays
        self._called = called
        self._publisher = publisher
        self._now = now

    def get_capabilities(self, deadline: float) -> Answer:
        return CAPABILITIES

    def create_network(self, call: wire.CreateNetwork, deadline: float) -> Answer:
        subnet, given = _subnet(call)
        gateway = wire.address_of(given) if given else None
        if gateway is not None and not subnet.is_host(gateway):
            raise Refused(f"the gateway {gateway} is no host address of {subnet}: choose a --gateway inside it")
        options, internal = plan.read_options(call.generic), call.option(wire.INTERNAL) is True
        request = Request(
            network=call.network,
            options=options,
            subnet=subnet,
            gateway=gateway,
            internal=internal,
            egress=egress.wants(options.egress, self._egress, internal, gateway),
        )
        self._overlays.create(request, deadline)
        return {}

    def delete_network(self, call: wire.OfNetwork, deadline: float) -> Answer:
        self._overlays.delete(call.network, deadline)
        return {}

    def create_endpoint(self, call: wire.CreateEndpoint, deadline: float) -> Answer:
        interface = call.interface or wire.Interface()
        if not interface.address:
            raise Refused("the endpoint has no IPv4 address: networks of myoverlay need an IPAM driver that gives one")
        if interface.address6:
            raise Refused("the endpoint has an IPv6 address: overlays are IPv4 only so far, leave out --ipv6 and --ip6")
        self._overlays.check_allowed()
        local = self._overlays.of(call.network)
        address, generation = wire.address_of(interface.address), int(self._now() * 1000)
        names = self._called.take(local.network.pool, address)
        made = local.add_endpoint(call.endpoint, address, call.mac, generation, deadline, names)
        self._overlays.on_use(local)
        self._publisher.offer(local.network.overlay)
        return {} if interface.mac else {"Interface": {"MacAddress": made.mac}}

    def join(self, call: wire.Join, deadline: float) -> Answer:
        """Hand over the interface. Where no gateway is named Docker gives the container its own bridge for the outside;
        ports are published there alone.

        Waits, bounded, until this host knows of the others. Where the address is not leased by us, or another host is
        known to have it, also until they can know of the endpoint: a refused claim disturbs nobody who talks to its
        owner.
        """
        local = self._overlays.of(call.network)
        ticket = self._publisher.offer(local.network.overlay)
        address = local.endpoint(call.endpoint).address
        if not self._overlays.is_sure(local, address):
            self._publisher.wait(local.network.overlay, ticket, address, PATIENCE)
        endpoint = local.join(call.endpoint, deadline, call.sandbox)
        local.listed.wait(PATIENCE)
        answer: Answer = {"InterfaceName": {"SrcName": endpoint.link, "DstPrefix": "eth"}}
        if not call.publishes and (gateway := local.gateway) is not None:
            answer["Gateway"] = gateway
        if local.resolver is not None and endpoint.route:
            way = signposts.route_to(local.resolver, endpoint.route)
            answer["StaticRoutes"] = [{"Destination": way, "RouteType": _CONNECTED}]
        return answer

    def leave(self, call: wire.OfEndpoint, deadline: float) -> Answer:
        local = self._overlays.find(call.network)
        if local is not None:
            local.leave(call.endpoint, deadline)
        return {}

    def delete_endpoint(self, call: wire.OfEndpoint, deadline: float) -> Answer:
        """The endpoint goes, by the journal; the others are told in the background, then its address is free."""
        local = self._overlays.find(call.network)
        if local is not None:
            gone = local.delete_endpoint(call.endpoint, deadline)
            if gone is not None:
                self._publisher.pardon(local.network.overlay, gone.address)
                self._publisher.offer(local.network.overlay)
        return {}

    def endpoint_info(self, call: wire.OfEndpoint, deadline: float) -> Answer:
        return {"Value": {}}

    def gateway_wanted(self, call: wire.Message, deadline: float) -> Answer:
        """Let Docker ask the IPAM driver for a gateway: br0 answers it. Only asked where it is announced (28 on)."""
        return {"SkipIPv4": False, "SkipIPv6": True}

    def not_for_swarm(self, call: wire.OfNetwork, deadline: float) -> Answer:
        raise Refused("networks of myoverlay belong to their host: create them on each host, without --scope swarm")

    def nothing(self, call: wire.Message, deadline: float) -> Answer:
        """Ports are published on Docker's own bridge alone; discovery events are for Swarm."""
        return {}


def _subnet(call: wire.CreateNetwork) -> tuple[Subnet, str]:
    if call.option(wire.ENABLE_IPV6) or call.ipv6:
        raise Refused("overlays are IPv4 only so far: leave out --ipv6")
    if call.option(wire.ENABLE_IPV4) is False or not call.ipv4:
        raise Refused("overlays need IPv4: leave out --ipv4=false")
    if len(call.ipv4) > 1:
        raise Refused(f"an overlay has one subnet so far, {len(call.ipv4)} are asked for: give one --subnet")
    subnet = wire.value(Subnet, call.ipv4[0].pool)
    if subnet.prefixlen < 8 or subnet.prefixlen > 30:
        raise Refused(f"{subnet} cannot be an overlay's subnet: /8 to /30 can (the null IPAM driver cannot be used)")
    return subnet, call.ipv4[0].gateway
