"""Which links an overlay namespace should hold, and the steps to it."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from myoverlay.plan import shape
from myoverlay.plan.shape import Ensure, Remove, Thing, name_of
from myoverlay.values import Address, Bridge, Mac, Veth, Vxlan
from tests.pure.kit import definition, endpoint, network

ENDPOINTS = [endpoint("10.5.0.3"), endpoint("10.5.0.4")]


def test_everything_comes_in_the_order_it_can_be_built() -> None:
    """The bridge first, then the tunnel and the cables that are put into it, with the overlay's MTU everywhere."""
    things = shape.wanted(network(), ENDPOINTS)
    bridge, vxlan, *cables = things
    assert isinstance(bridge, Bridge)
    assert isinstance(vxlan, Vxlan)
    assert {thing.mtu for thing in things} == {1450}
    assert {vxlan.bridge, *(cable.bridge for cable in cables if isinstance(cable, Veth))} == {bridge.name}
    assert [(cable.port, cable.link, cable.mac) for cable in cables if isinstance(cable, Veth)] == [
        (one.port, one.link, one.mac) for one in ENDPOINTS
    ]


def test_the_tunnel_is_the_definitions() -> None:
    """VNI and port are the overlay's, the local address is this host's VTEP."""
    vxlan = shape.vxlan(network(vtep=Address("192.0.2.9"), definition=definition(vni=7, port=8472)))
    assert (vxlan.vni, vxlan.port, vxlan.local) == (7, 8472, "192.0.2.9")


def test_the_bridges_mac_is_the_same_on_every_host() -> None:
    """It follows from the overlay alone, is none that a container gets, and differs between gateways."""
    here = shape.bridge_mac(network())
    assert here == shape.bridge_mac(network(network="m" * 64, vtep=Address("192.0.2.9")))
    assert here != Mac.of(Address("10.5.0.1"))
    assert here != shape.bridge_mac(network(definition=definition(gateway=Address("10.5.0.2"))))


def test_the_bridge_has_the_gateways_address() -> None:
    """With a gateway br0 answers for it; without one it has a MAC all the same and no address."""
    assert (shape.bridge(network()).address, shape.bridge(network()).prefixlen) == ("10.5.0.1", 24)
    bare = shape.bridge(network(definition=definition(gateway=None)))
    assert (bare.address, bare.prefixlen) == (None, 0)


WANT = shape.wanted(network(), ENDPOINTS)


def test_nothing_to_do_where_all_is_in_order() -> None:
    """A namespace that holds what is wanted gets no step, so that adopting it disturbs nobody."""
    assert shape.diff(WANT, {name_of(thing): thing for thing in WANT}) == []


def test_an_empty_namespace_gets_all_in_order() -> None:
    """Everything is made, as it was listed."""
    assert shape.diff(WANT, {}) == [Ensure(thing) for thing in WANT]


def test_steps_read_as_words() -> None:
    """A step prints as one short line for the log."""
    assert [str(step) for step in shape.diff(WANT[:1], {"old": None})] == ["remove old", "ensure br0"]


def altered(thing: Thing) -> Thing:
    return msgspec.structs.replace(thing, mtu=thing.mtu - 1)


@given(st.lists(st.sampled_from(["right", "wrong", "broken", "absent"]), min_size=4, max_size=4), st.sets(
    st.sampled_from(["stray0", "stray1", "p000000000000"])
))  # fmt: skip
def test_steps_lead_to_what_is_wanted(states: list[str], strays: set[str]) -> None:
    """From any state the steps give exactly what is wanted; surplus goes first, and what is right is not touched."""
    seen: dict[str, Thing | None] = dict.fromkeys(strays)
    for thing, state in zip(WANT, states, strict=True):
        if state != "absent":
            seen[name_of(thing)] = {"right": thing, "wrong": altered(thing), "broken": None}[state]
    steps = shape.diff(WANT, seen)
    after = dict(seen)
    for step in steps:
        if isinstance(step, Remove):
            del after[step.name]
        else:
            after[name_of(step.thing)] = step.thing
    assert after == {name_of(thing): thing for thing in WANT}
    kinds = [type(step) for step in steps]
    assert kinds == sorted(kinds, key=[Remove, Ensure].index)
    assert len(steps) == len(strays) + sum(state != "right" for state in states)
    assert shape.diff(WANT, after) == []
