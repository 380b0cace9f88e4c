"""The addresses of a link, made as they should be."""

from __future__ import annotations

from collections.abc import Sequence

from myoverlay.kernel.channel import Channel, attempt
from myoverlay.kernel.linkforms import Resolving
from myoverlay.kernel.underlay import RT_SCOPE_LINK, RT_SCOPE_UNIVERSE, Place, places
from myoverlay.values import Address, Subnet

SCOPES = (RT_SCOPE_UNIVERSE, RT_SCOPE_LINK)
#: linux/if_addr.h. The same gateway address is on every host of an overlay: a duplicate is what we want.
IFA_F_NODAD = 0x02


def of_resolvers(places: Sequence[Place]) -> list[Place]:
    """IPv6 gives each link an address of link scope by itself."""
    return [place for place in places if place.address.version == 4]


def resolving_of(place: Place) -> Resolving:
    if place.other == place.address:
        return Resolving(place.address, None)
    return Resolving(place.address, Subnet(f"{place.other}/{place.prefixlen}"))


def correct_addresses(
    channel: Channel, index: int, name: str, wanted: set[tuple[Address, int]], *, keep: bool = False
) -> None:
    with attempt(f"setting the address of {name}"):
        there = {(place.address, place.prefixlen) for place in places(channel.wire) if place.index == index}
        for address, length in set() if keep else there - wanted:
            channel.ipr.addr("del", index=index, address=str(address), prefixlen=length)
        for address, length in wanted - there:
            flags = {"IFA_FLAGS": IFA_F_NODAD} if address.version == 6 else {}
            channel.ipr.addr("add", index=index, address=str(address), prefixlen=length, **flags)


def correct_resolver(channel: Channel, index: int, name: str, wanted: set[Resolving], verb: str) -> None:
    """Take what is wrong away ("del"), or set what is missing ("add"), of the addresses of link scope.

    Of that scope, so that nothing of the host's chooses it as a source, nor we as a VTEP. With the network beyond it,
    the address brings the route to it along; beside another address in that network the kernel refuses it.
    """
    with attempt(f"setting the resolver's address of {name}"):
        held = of_resolvers(places(channel.wire, RT_SCOPE_LINK))
        there = {resolving_of(place) for place in held if place.index == index}
        for own, reach in there - wanted if verb == "del" else wanted - there:
            network, length = str(reach).split("/") if reach else (str(own), "32")
            given = {"address": network, "local": str(own), "prefixlen": int(length)}
            channel.ipr.addr(verb, index=index, scope=RT_SCOPE_LINK, **given)
