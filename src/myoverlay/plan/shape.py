"""Which links an overlay namespace should hold, and how that differs from what is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from myoverlay.values import Address, Bridge, Endpoint, Mac, Network, Veth, Vxlan

BRIDGE = "br0"
VXLAN = "vxlan1"
#: A bridge takes 1,023 ports (BR_MAX_PORTS less one, net/bridge/br_private.h); one is the VXLAN device.
MAX_ENDPOINTS = 1022

Thing = Bridge | Vxlan | Veth


class Ensure(msgspec.Struct, frozen=True):
    """Make it so, whatever is there under that name."""

    thing: Thing

    def __str__(self) -> str:
        return f"ensure {name_of(self.thing)}"


class Remove(msgspec.Struct, frozen=True):
    """Take it away, if it is there."""

    name: str

    def __str__(self) -> str:
        return f"remove {self.name}"


def name_of(thing: Thing) -> str:
    """The link's name inside the overlay namespace."""
    return thing.port if isinstance(thing, Veth) else thing.name


def bridge_mac(network: Network) -> Mac:
    """br0's MAC: derived from the gateway and the same on every host, so that whoever moves keeps a warm cache."""
    definition = network.definition
    return mac_for(definition.gateway or definition.subnet.at(definition.subnet.first))


def mac_for(gateway: Address) -> Mac:
    """A bridge's MAC from its address: 02:6f, so that it is no container's (02:42)."""
    return Mac.unpack(b"\x02\x6f" + gateway.packed[-4:])


def resolver_in(network: Network, resolver: Address | None) -> Address | None:
    """The resolver's address in this overlay: none where its subnet has that address itself."""
    return None if resolver is None or resolver in network.subnet else resolver


def bridge(network: Network, resolver: Address | None = None) -> Bridge:
    definition, own = network.definition, resolver_in(network, resolver)
    return Bridge(
        name=BRIDGE,
        mac=bridge_mac(network),
        mtu=definition.mtu,
        address=definition.gateway,
        prefixlen=definition.subnet.prefixlen if definition.gateway else 0,
        resolver=own,
        reach=definition.subnet if own is not None and definition.gateway is None else None,
    )


def vxlan(network: Network) -> Vxlan:
    definition = network.definition
    return Vxlan(
        name=VXLAN,
        bridge=BRIDGE,
        vni=definition.vni,
        port=definition.port,
        local=network.vtep,
        mtu=definition.mtu,
    )


def veth(network: Network, endpoint: Endpoint) -> Veth:
    return Veth(
        port=endpoint.port, link=endpoint.link, bridge=BRIDGE, mac=endpoint.mac, mtu=network.definition.mtu
    )  # fmt: skip


def cable(bridge: str, link: str | None, address: Address, mac: Mac, mtu: int) -> Veth:
    """A cable laid by hand: named after its MAC, which an overlay has only once."""
    return Veth(port=f"h{mac.packed.hex()}", link=link, bridge=bridge, mac=mac, mtu=mtu, address=address)


def tap(bridge: str, name: str, address: Address, mac: Mac, mtu: int) -> Veth:
    """A tap laid by hand, which a VM asks for by its name."""
    return Veth(port=name, link=None, bridge=bridge, mac=mac, mtu=mtu, address=address)


def wanted(network: Network, endpoints: Iterable[Endpoint], resolver: Address | None = None) -> tuple[Thing, ...]:
    """Everything the overlay namespace should hold, in the order it can be built."""
    return (bridge(network, resolver), vxlan(network), *(veth(network, endpoint) for endpoint in endpoints))


def diff(want: Sequence[Thing], seen: Mapping[str, Thing | None]) -> list[Ensure | Remove]:
    """What to do: surplus links go first (a name or a port may be needed), then what differs is made.

    `seen` are the links by name; None stands for one that is not in order, whatever it is.
    """
    names = {name_of(thing) for thing in want}
    surplus = [Remove(name) for name in seen if name not in names]
    return [*surplus, *(Ensure(thing) for thing in want if seen.get(name_of(thing)) != thing)]
