"""Who goes to the outside by the overlay's own gateway, and under which address the overlay does on its host.

Docker adds a second interface on `docker_gwbridge` to each container whose network names no gateway. An overlay with a
way of its own has one cable on the host's Docker bridge for all its containers instead.
"""

from __future__ import annotations

from collections.abc import Iterable

from myoverlay.egress import OWN, Leg
from myoverlay.errors import Refused
from myoverlay.values import Address, Subnet

#: Where the cables' addresses come from: link-local, so that they are nobody's elsewhere, and clear of the clouds' own.
POOL = Subnet("169.254.80.0/20")


def wants(asked: str | None, usual: str, internal: bool, gateway: Address | None) -> bool:
    """Is the network to have a way of its own? `asked`: with -o egress=. Raises Refused where it cannot have one."""
    if (asked or usual) != OWN:
        return False
    if asked and internal:
        raise Refused("-o egress=own and --internal contradict each other: leave out one of them")
    if asked and gateway is None:
        raise Refused("-o egress=own needs a gateway: the IPAM driver has given none")
    return gateway is not None and not internal


def choose(taken: Iterable[Address | None]) -> Address:
    """The address of one more cable. Raises Refused where there is none left."""
    used = set(taken)
    for number in range(POOL.first, POOL.last + 1):
        address = POOL.at(number)
        if address not in used:
            return address
    raise Refused(f"all addresses of {POOL} lead out of some overlay of this host: use -o egress=docker")


def leg(address: Address, bridge: str, via: Address, mtu: int) -> Leg:
    return Leg(f"myeg{address.packed.hex()}", bridge, via, mtu, address)
