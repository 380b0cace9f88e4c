"""A container's ways to the resolver, one for each network of ours that it is on.

They may not be the same route: the second would be refused with "file exists", and the container not start. So each is
of another length, the longest leads, and when it goes with its network the next one does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from myoverlay.values import Address, Endpoint, Subnet

#: The longest first. At /16 the clouds' 169.254.169.254 would be inside.
LENGTHS = range(32, 19, -1)


def length_for(endpoint: Endpoint, sandbox: str, endpoints: Iterable[Endpoint]) -> int:
    """What an endpoint of the sandbox gets, beside its other ones: the same as before where it is there already."""
    if endpoint.route and endpoint.sandbox == sandbox:
        return endpoint.route
    return free_length({one.route for one in endpoints if one.sandbox == sandbox and one.endpoint != endpoint.endpoint})


def free_length(taken: Collection[int]) -> int:
    """A length that no other network of the container has; 0 where all are taken: the others still lead there."""
    return next((length for length in LENGTHS if length not in taken), 0)


def route_to(resolver: Address, length: int) -> Subnet:
    """The network of that length around the resolver's address."""
    mask = ~((1 << (32 - length)) - 1) & 0xFFFFFFFF
    return Subnet(f"{Address.unpack((resolver.number & mask).to_bytes(4, 'big'))}/{length}")
