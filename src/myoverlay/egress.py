"""An overlay's own way to the outside, as a value: the plan says what it should be, the kernel what it is."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from myoverlay.values import Address

#: Who leads containers to the outside: the overlay's gateway, or the bridge that Docker adds.
OWN, DOCKER = "own", "docker"
#: What the cable is called in the overlay namespace.
NEAR = "egress0"


class Leg(NamedTuple):
    """The cable from an overlay namespace to a bridge of the host: its end there, that bridge with its address and MTU,
    and the cable's own address, under which the overlay's containers speak on that bridge.
    """

    link: str
    bridge: str
    via: Address
    mtu: int
    address: Address


class Crossing(msgspec.Struct, frozen=True):
    """What the host's table holds: the addresses of all cables, and the bridges they lead to."""

    addresses: frozenset[Address] = frozenset()
    bridges: frozenset[str] = frozenset()


def check_choice(text: str) -> str:
    if text not in (OWN, DOCKER):
        raise ValueError(f"{text!r} is neither {OWN} nor {DOCKER}")
    return text
