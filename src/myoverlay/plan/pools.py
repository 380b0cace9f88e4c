"""Which pool, which address: choices over what is taken."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator

from myoverlay.errors import Clash, Refused
from myoverlay.values import Address, OverlayName, Pool, Subnet

AUTOMATIC_PREFIXLEN = 24
RESERVE_LIMIT = 8
RESERVE_SHARE = 32


def reserve_size(subnet: Subnet) -> int:
    """How many free addresses a host keeps, so that containers start while the store is away."""
    return min(RESERVE_LIMIT, subnet.size // RESERVE_SHARE)


def choose_pool(base: Subnet, taken: Collection[Subnet]) -> Subnet:
    """The first /24 of `base` that overlaps nothing taken. Raises Refused when there is none."""
    here = [other for other in taken if other.overlaps(base)]
    for candidate in ipaddress.ip_network(str(base)).subnets(new_prefix=AUTOMATIC_PREFIXLEN):
        subnet = Subnet(str(candidate))
        if not any(subnet.overlaps(other) for other in here):
            return subnet
    raise Refused(f"no /{AUTOMATIC_PREFIXLEN} of {base} is free on this host: give one with --subnet")


def check_pool(subnet: Subnet, overlay: OverlayName | None, pools: Iterable[Pool]) -> None:
    """Raises Clash, naming the first holder, where a pool is somebody else's or overlaps another."""
    for pool in pools:
        holder = f"overlay {pool.overlay}" if pool.overlay else "a network that is being created"
        if pool.subnet == subnet:
            if overlay and pool.overlay and pool.overlay != overlay:
                raise Clash(f"pool {subnet} belongs to overlay {pool.overlay}, not to {overlay}")
        elif pool.subnet.overlaps(subnet):
            raise Clash(f"pool {subnet} overlaps {pool.subnet} of {holder}: choose another --subnet")


def check_address(subnet: Subnet, address: Address, gateway: Address | None) -> None:
    """Raises Refused where no container could have the address."""
    if not subnet.is_host(address):
        raise Refused(
            f"{address} is no host address of {subnet}: {subnet.at(subnet.first)} to {subnet.at(subnet.last)} are"
        )
    if address == gateway:
        raise Refused(f"{address} is the gateway of {subnet}: choose another address")


def candidates(subnet: Subnet, within: Subnet | None, taken: Collection[Address]) -> Iterator[Address]:
    """Free addresses, lowest first, of the pool or of the `--ip-range` within it."""
    area = within or subnet
    low, high = max(subnet.first, _low(area)), min(subnet.last, _high(area))
    for number in range(low, high + 1):
        address = subnet.at(number)
        if address not in taken:
            yield address


def _low(subnet: Subnet) -> int:
    return int(ipaddress.ip_network(str(subnet)).network_address)


def _high(subnet: Subnet) -> int:
    return int(ipaddress.ip_network(str(subnet)).broadcast_address)
