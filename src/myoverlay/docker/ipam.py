"""IpamDriver.*: one function per method."""

from __future__ import annotations

from typing import Any

from myoverlay.docker import wire
from myoverlay.errors import Refused
from myoverlay.host.called import Called
from myoverlay.host.leases import Leases
from myoverlay.host.pools import Pools
from myoverlay.values import Address, OverlayName, Subnet

Answer = dict[str, Any]


#: No MAC is needed to give an address, and nothing need be replayed: the journal knows.
CAPABILITIES: Answer = {"RequiresMACAddress": False, "RequiresRequestReplay": False}
SPACES: Answer = {"LocalDefaultAddressSpace": "myoverlay", "GlobalDefaultAddressSpace": "myoverlay"}


class IpamDriver:
    """The methods of the IPAM driver, over the pools and leases of this host."""

    def __init__(self, pools: Pools, leases: Leases, called: Called) -> None:
        self._pools = pools
        self._leases = leases
        self._called = called

    def get_capabilities(self, deadline: float) -> Answer:
        return CAPABILITIES

    def get_spaces(self, deadline: float) -> Answer:
        return SPACES

    def request_pool(self, call: wire.RequestPool, deadline: float) -> Answer:
        if call.v6:
            raise Refused("overlays are IPv4 only so far: leave out --ipv6")
        use = self._pools.request(
            _pool(call.pool) if call.pool else None,
            wire.value(Subnet, call.within) if call.within else None,
            _overlay(call.options or {}),
            deadline,
        )
        return {"PoolID": use.pool, "Pool": use.subnet}

    def release_pool(self, call: wire.ReleasePool, deadline: float) -> Answer:
        self._pools.release(call.pool)
        return {}

    def request_address(self, call: wire.RequestAddress, deadline: float) -> Answer:
        asked = wire.value(Address, call.address) if call.address else None
        options = call.options or {}
        if options.get(wire.ADDRESS_TYPE) == wire.GATEWAY:
            address, subnet = self._pools.gateway(call.pool, asked, deadline)
        else:
            address, subnet = self._leases.claim(call.pool, asked, deadline)
            self._called.hint(call.pool, address, options.get(wire.ENDPOINT_NAME, ""))
        return {"Address": f"{address}/{subnet.prefixlen}"}

    def release_address(self, call: wire.ReleaseAddress, deadline: float) -> Answer:
        self._leases.release(call.pool, wire.address_of(call.address))
        return {}


def _pool(text: str) -> Subnet:
    subnet = wire.value(Subnet, text)
    if subnet.version != 4:
        raise Refused(f"{subnet} is not IPv4: overlays are IPv4 only so far")
    if subnet.prefixlen < 8 or subnet.prefixlen > 30:
        raise Refused(f"{subnet} cannot be a pool: /8 to /30 can")
    return subnet


def _overlay(options: dict[str, str]) -> OverlayName | None:
    for name in options:
        if name != "overlay":
            raise Refused(f"unknown --ipam-opt {name!r}: valid is overlay")
    return wire.value(OverlayName, options["overlay"]) if "overlay" in options else None
