"""A container's ways to the resolver never clash, whatever it is connected to in which order."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from myoverlay.plan.signposts import LENGTHS, free_length, length_for, route_to
from myoverlay.values import Address
from tests.pure.kit import endpoint

RESOLVER = Address("169.254.77.53")


def test_routes_hold_the_resolver_and_not_the_clouds_address() -> None:
    """Each length's route leads to the resolver; none to 169.254.169.254."""
    routes = [route_to(RESOLVER, length) for length in LENGTHS]
    assert routes[:4] == ["169.254.77.53/32", "169.254.77.52/31", "169.254.77.52/30", "169.254.77.48/29"]
    for route in routes:
        assert RESOLVER in route
        assert ipaddress.ip_address("169.254.169.254") not in ipaddress.ip_network(route)


@given(st.lists(st.tuples(st.integers(0, 15), st.booleans()), max_size=60))
def test_no_two_networks_of_a_sandbox_get_the_same_route(steps: list[tuple[int, bool]]) -> None:
    """Over connects and disconnects in any order lengths stay distinct; 0 only where all are taken."""
    held: dict[int, int] = {}
    for network, connects in steps:
        if not connects:
            held.pop(network, None)
        elif network not in held:
            length = free_length({one for one in held.values() if one})
            assert length not in held.values() or (length == 0 and len(held) >= len(LENGTHS))
            held[network] = length


def test_an_endpoint_keeps_its_route_and_other_sandboxes_do_not_matter() -> None:
    """The same Join again gets the same; another container begins with the longest; another sandbox asks anew."""
    mine = endpoint("10.5.0.2", sandbox="s", route=31)
    other = endpoint("10.5.0.3", sandbox="s", route=32)
    assert length_for(mine, "s", [mine, other]) == 31
    assert length_for(endpoint("10.5.0.4"), "s", [mine, other]) == 30
    assert length_for(endpoint("10.5.0.4"), "t", [mine, other]) == 32
    assert length_for(mine, "t", [mine, other]) == 32
