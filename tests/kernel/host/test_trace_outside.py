"""`trace` where no container can be entered, as in a managed plugin: route and neighbour are told by an echo."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from tests.kernel.conftest import open_fds
from tests.kernel.host.hosts import Hosts
from tests.kernel.host.tools import in_parallel, ip, left_behind, until
from tests.kernel.host.tracing import WRONG_MAC, Side, first, know_each_other, told, trace

RESOLVER = "169.254.77.53"
SUBNET = "10.5.0.0/24"


class Fault(NamedTuple):
    """What is done in a container, which hop is to be named for it, and what that hop should have seen."""

    harm: Callable[[Side], None]
    hop: str
    seen: str
    undo: Callable[[Side], None]


def _in(*words: str) -> Callable[[Side], None]:
    """A command in the container; `{other}` in it is the other end's address."""
    return lambda side: side.inside(*(word.format(other=side.other.address, own=side.own.address) for word in words))


def _by_another(side: Side) -> None:
    """A second interface, as Docker's own bridge is to a container, and the route over that."""
    ip(side.own.ns, "link add out type veth peer name out-far", "link set out up", "link set out-far up")
    side.inside("ip", "route", "add", f"{side.other.address}/32", "dev", "out")


BACK = _in("ip", "route", "replace", SUBNET, "dev", "eth0", "src", "{own}")
FAULTS = {
    "no route": Fault(_in("ip", "route", "del", SUBNET), "container route", "not answered by eth0", BACK),
    "a blackhole": Fault(
        _in("ip", "route", "add", "blackhole", "{other}/32"),
        "container route",
        "not answered by eth0",
        _in("ip", "route", "del", "blackhole", "{other}/32"),
    ),
    "by the gateway": Fault(
        _in("ip", "route", "add", "{other}/32", "via", "10.5.0.1"),
        "container route",
        "10.5.0.1",
        _in("ip", "route", "del", "{other}/32", "via", "10.5.0.1"),
    ),
    "by a gateway that is nowhere": Fault(
        _in("ip", "route", "add", "{other}/32", "via", "10.5.0.77"),
        "container route",
        "asked for the MAC of 10.5.0.77",
        _in("ip", "route", "del", "{other}/32", "via", "10.5.0.77"),
    ),
    "by another interface": Fault(
        _by_another, "container route", "not answered by eth0", _in("ip", "link", "del", "out")
    ),
    "a wrong neighbour": Fault(
        _in("ip", "neigh", "replace", "{other}", "lladdr", WRONG_MAC, "dev", "eth0", "nud", "permanent"),
        "container neighbour",
        WRONG_MAC,
        _in("ip", "neigh", "del", "{other}", "dev", "eth0"),
    ),
    "a wrong neighbour that ages": Fault(
        _in("ip", "neigh", "replace", "{other}", "lladdr", WRONG_MAC, "dev", "eth0", "nud", "stale"),
        "container neighbour",
        WRONG_MAC,
        _in("ip", "neigh", "del", "{other}", "dev", "eth0"),
    ),
    "no ARP": Fault(
        lambda s: ip(s.own.ns, "neigh flush dev eth0", "link set eth0 arp off"),
        "container neighbour",
        "ARP is off",
        _in("ip", "link", "set", "eth0", "arp", "on"),
    ),
    "the MTU": Fault(
        _in("ip", "link", "set", "eth0", "mtu", "1200"),
        "container link",
        "1200",
        _in("ip", "link", "set", "eth0", "mtu", "1450"),
    ),
}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """In place of the common one: hosts that live through many tests open this and that late; `sides` looks itself."""
    return


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    """Two hosts that say nothing of where their containers' namespaces are, a container on each; none repairs."""
    fds, threads, before = open_fds(), threading.active_count(), left_behind()
    with Hosts(tmp_path_factory.mktemp("outside")) as hosts:
        near, far = hosts.host(names=RESOLVER), hosts.host(names=RESOLVER)
        in_parallel(near.create_network, far.create_network)
        for host in (near, far):
            host.daemon.reconciler.stop(5)
        a, b = near.run(), far.run()
        both = Side(near, a, b), Side(far, b, a)  # type: ignore[arg-type]
        know_each_other(*both)
        for side in both:
            side.inside("ip", "route", "add", f"{RESOLVER}/32", "dev", "eth0")  # as Docker does, by our Join's answer
        until(lambda: trace(near, a, b)["whole"], 15, "the first trace")
        yield both
    until(lambda: open_fds() <= fds and threading.active_count() <= threads)
    assert left_behind() == before


def states(sides: tuple[Side, Side]) -> dict[tuple[str, str], str]:
    near, _ = sides
    return {(step["host"], step["hop"]): step["state"] for step in trace(near.host, near.own, near.other)["steps"]}


def test_a_whole_path_is_seen_whole(sides: tuple[Side, Side]) -> None:
    """Every hop of both hosts is right, the containers' routes and neighbours among them, whether they know the other
    already or not."""
    for warm in (False, True):
        for side in sides:
            if not warm:
                side.inside("ip", "neigh", "flush", "dev", "eth0")
        assert set(states(sides).values()) == {"right"}, told(trace(sides[0].host, sides[0].own, sides[0].other))
        assert None not in sides[0].own.ping(sides[1].own.address, timeout=2)


@pytest.mark.parametrize("where", ["near", "far"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_inside_is_named(sides: tuple[Side, Side], name: str, where: str) -> None:
    """What was spoilt in a container that nobody here can enter is the first wrong hop, on its host."""
    fault, side = FAULTS[name], sides[where == "far"]
    near, _ = sides
    fault.harm(side)
    try:
        found = trace(near.host, near.own, near.other)
        named = first(found)
        assert (named.get("host"), named.get("hop")) == (side.host.name, fault.hop), told(found)
        assert fault.seen in named["saw"], named
        assert named["remedy"]
        assert not named["heals"]
    finally:
        fault.undo(side)
    until(lambda: trace(near.host, near.own, near.other)["whole"], 5, f"{name}: the healed path")
    assert None not in sides[0].own.ping(sides[1].own.address, timeout=2)


@pytest.mark.parametrize("where", ["near", "far"])
def test_a_container_that_answers_no_echo_is_not_blamed(sides: tuple[Side, Side], where: str) -> None:
    """Its ICMP is off: route and neighbour are told unseen in one clear sentence, and nothing is called wrong."""
    side, (near, _) = sides[where == "far"], sides
    for other in sides:  # nobody asks for what he knows
        other.inside("ip", "neigh", "replace", other.other.address, "lladdr", other.other.mac, "dev", "eth0")

    def echo(ignored: str) -> None:
        side.own.ns.sysctls({"net/ipv4/icmp_echo_ignore_all": ignored})

    echo("1")
    try:
        found = trace(near.host, near.own, near.other)
        assert first(found) == {}, told(found)
        unseen = [step for step in found["steps"] if step["state"] == "unseen"]
        assert {(step["host"], step["hop"]) for step in unseen} == {
            (side.host.name, "container route"),
            (side.host.name, "container neighbour"),
        }
        assert all("the container answers no echo: ICMP is off or filtered in it" in step["saw"] for step in unseen)
    finally:
        echo("0")
