"""Readings of a path judged without a kernel: what is right, what is named, in which order, and what explains what."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from myoverlay.path import (
    HOPS,
    SAID,
    Device,
    Does,
    End,
    Floor,
    Forwarding,
    Hop,
    Link,
    Neighbour,
    PathAnswer,
    Room,
    Route,
    Rules,
    Sieve,
    State,
    Tunnel,
)
from myoverlay.plan import half, hops, path
from myoverlay.plan.half import Half
from myoverlay.plan.measure import Reach
from myoverlay.values import Address, HostId, Mac, decoder, encode
from tests.pure.kit import ANN, BOB

A = End(address=Address("10.5.0.2"), mac=Mac("02:42:0a:05:00:02"), vtep=Address("192.0.2.1"), host=ANN)
B = End(address=Address("10.5.0.3"), mac=Mac("02:42:0a:05:00:03"), vtep=Address("192.0.2.2"), host=BOB)
TUNNEL = Tunnel(vni=0x700001, port=4789, mtu=1450)
PORT = Link("p1", "veth", A.mac, 1450, True, "br0")
VXLAN = Link("vxlan1", "vxlan", "02:00:00:00:00:01", 1450, True, "br0")
ETH0 = Link("eth0", "veth", A.mac, 1450, True)
FLOOR = Floor(
    bridge=Link("br0", "bridge", "02:6f:0a:05:00:01", 1450, True),
    device=Device(VXLAN, 0x700001, 4789, "192.0.2.1"),
    links={"p1": PORT, "vxlan1": VXLAN},
    macs={A.mac: "p1"},
    neighbour=Neighbour(B.mac, "permanent"),
    forwarding=Forwarding(B.vtep, "permanent", False),
)
ROOM = Room(ETH0, Route("eth0", None, A.address, 1450), Neighbour(B.mac, "reachable"))
OUTER = Route("ens3", None, A.vtep, 1500), Neighbour("02:aa:00:00:00:01", "reachable")


def side(**changes: Any) -> Half:
    usual: dict[str, Any] = {
        "tunnel": TUNNEL, "vtep": A.vtep, "own": A, "other": B, "port": "p1", "floor": FLOOR, "far": ETH0, "room": ROOM,
        "outer": OUTER, "enter": "nsenter --net=/proc/7/ns/net", "overlay": "web",
    }  # fmt: skip
    return Half(**usual | changes)


def wrong(hops: list[Hop]) -> list[str]:
    return [hop.name for hop in hops if hop.state is State.WRONG]


def unseen(hops: list[Hop]) -> list[str]:
    return [hop.name for hop in hops if hop.state is State.UNSEEN]


def test_a_whole_half_is_right_in_order() -> None:
    """Nothing is wrong or unseen, and the mirror is the same backwards."""
    hops = half.leaving(side())
    assert [hop.name for hop in hops] == [
        "container route", "container neighbour", "container link", "veth", "bridge port", "bridge row", "bridge",
        "overlay firewall", "VXLAN port", "neighbour row", "FDB row", "VXLAN device", "host firewall", "underlay route",
    ]  # fmt: skip
    assert {hop.state for hop in hops} == {State.RIGHT}
    assert half.arriving(side()) == hops[::-1]
    assert all(not hop.remedy and not hop.wanted for hop in hops)


def floor(**changes: Any) -> Half:
    return side(floor=FLOOR._replace(**changes))


def links(**changes: Link) -> Half:
    return floor(links={**FLOOR.links, **changes})


def device(**changes: Any) -> Half:
    return floor(device=Device(VXLAN, 0x700001, 4789, "192.0.2.1")._replace(**changes))


def vxlan(**changes: Any) -> Half:
    link = VXLAN._replace(**changes)
    return side(floor=FLOOR._replace(device=FLOOR.device._replace(link=link) if FLOOR.device else None, links={"p1": PORT, "vxlan1": link}))  # fmt: skip # noqa: E501


def room(**changes: Any) -> Half:
    return side(room=ROOM._replace(**changes))


def outer(**changes: Any) -> Half:
    return side(outer=(OUTER[0]._replace(**changes), OUTER[1]))


ONE = {
    "no route": (room(route=Route(trouble="no route leads there")), "container route", False),
    "by another interface": (room(route=Route("eth1", None, None, 1500)), "container route", False),
    "by a gateway": (room(route=Route("eth0", Address("10.5.0.1"), None, 1450)), "container route", False),
    "another's MAC": (room(neighbour=Neighbour(A.mac, "stale")), "container neighbour", False),
    "no ARP": (room(link=ETH0._replace(arp=False), neighbour=None), "container neighbour", False),
    "another MAC of its own": (room(link=ETH0._replace(mac=B.mac)), "container link", False),
    "container's MTU": (room(link=ETH0._replace(mtu=1500)), "container link", False),
    "veth down": (links(p1=PORT._replace(up=False)), "veth", True),
    "veth MTU": (links(p1=PORT._replace(mtu=1500)), "veth", True),
    "in no bridge": (links(p1=PORT._replace(master="")), "bridge port", True),
    "in another bridge": (links(p1=PORT._replace(master="br7")), "bridge port", True),
    "closed port": (links(p1=PORT._replace(forwards=False)), "bridge port", False),
    "no bridge row": (floor(macs={}), "bridge row", True),
    "the peer's row here": (floor(macs={A.mac: "p1", B.mac: "p1"}), "bridge row", True),
    "bridge down": (floor(bridge=FLOOR.bridge._replace(up=False)) if FLOOR.bridge else side(), "bridge", True),
    "VXLAN down": (vxlan(up=False), "VXLAN port", True),
    "VXLAN in no bridge": (vxlan(master=""), "VXLAN port", True),
    "VXLAN MTU": (vxlan(mtu=1400), "VXLAN port", True),
    "no neighbour": (floor(neighbour=None), "neighbour row", True),
    "wrong neighbour": (floor(neighbour=Neighbour(A.mac, "permanent")), "neighbour row", True),
    "a neighbour that ages": (floor(neighbour=Neighbour(B.mac, "stale")), "neighbour row", True),
    "no FDB row": (floor(forwarding=None), "FDB row", True),
    "wrong VTEP": (floor(forwarding=Forwarding("192.0.2.9", "permanent", False)), "FDB row", True),
    "a remote of its own": (floor(forwarding=Forwarding(B.vtep, "permanent", True)), "FDB row", True),
    "VNI": (device(vni=7), "VXLAN device", True),
    "UDP port": (device(port=8472), "VXLAN device", True),
    "VTEP": (device(local="192.0.2.77"), "VXLAN device", True),
    "no underlay route": (outer(trouble="no route leads there"), "underlay route", False),
    "underlay down": (outer(up=False), "underlay route", False),
    "underlay MTU": (outer(mtu=1499), "underlay route", False),
    "silent next hop": (side(outer=(OUTER[0], Neighbour("", "failed"))), "underlay route", False),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_each_fault_is_one_hop(name: str) -> None:
    """One thing is wrong: that hop alone is, it says what it saw, what should be and what repairs it."""
    spoilt, hop, heals = ONE[name]
    hops = half.leaving(spoilt)
    assert wrong(hops) == [hop]
    (named,) = [one for one in hops if one.state is State.WRONG]
    assert named.saw
    assert named.wanted not in ("", named.saw)
    assert named.remedy
    assert named.heals == heals
    assert (named.remedy == half.HEALED) == heals


def test_what_follows_from_a_fault_is_not_blamed() -> None:
    """A container's interface that is down has no route and closes its port; a device that is gone has no rows."""
    down = ETH0._replace(up=False)
    hops = half.leaving(side(room=Room(down, Route(trouble="no route leads there"), None), far=down, floor=FLOOR._replace(links={"p1": PORT._replace(forwards=False)})))  # fmt: skip # noqa: E501
    assert wrong(hops) == ["container link"]
    assert unseen(hops) == ["container route", "bridge port"]
    hops = half.leaving(floor(device=None))
    assert wrong(hops) == ["VXLAN port"]
    assert unseen(hops) == ["neighbour row", "FDB row", "VXLAN device"]
    # Out of its bridge a port loses its row with it.
    hops = half.arriving(floor(links={**FLOOR.links, "p1": PORT._replace(master="")}, macs={}))
    assert wrong(hops) == ["bridge port"]
    hops = half.leaving(floor(links={"vxlan1": VXLAN}))
    assert wrong(hops) == ["veth"]


@pytest.mark.parametrize("state", ["incomplete", "failed", "none"])
def test_a_neighbour_that_is_asked_for_anew_is_not_wrong(state: str) -> None:
    """A row without a MAC says that somebody asked; the next packet asks again."""
    assert wrong(half.leaving(room(neighbour=Neighbour("", state)))) == []
    assert wrong(half.leaving(room(neighbour=None))) == []


def test_rows_that_are_pulled_may_be_missing() -> None:
    """Above the eager limit a row is not there before somebody asks; one that is there and wrong is wrong."""
    assert wrong(half.leaving(side(floor=FLOOR._replace(neighbour=None, forwarding=None), pulled=True))) == []
    bent = FLOOR._replace(forwarding=Forwarding("192.0.2.9", "permanent", False))
    assert wrong(half.leaving(side(floor=bent, pulled=True))) == ["FDB row"]


def test_what_cannot_be_entered_is_unseen() -> None:
    """Without the container's namespace its link is judged by what the cable shows, and the rest is not judged."""
    hops = half.leaving(side(room=None))
    assert unseen(hops) == ["container route", "container neighbour"]
    assert wrong(half.leaving(side(room=None, far=ETH0._replace(mtu=9000)))) == ["container link"]
    assert wrong(half.leaving(side(room=None, far=None))) == ["container link"]


def test_rules_that_cannot_be_read_are_said() -> None:
    """No nft, or tables of the old iptables: neither right nor wrong."""
    hops = half.leaving(side(host_rules=Rules(trouble="there is no program nft")))
    assert unseen(hops) == ["host firewall"]
    hops = half.leaving(side(host_rules=Rules(legacy=("filter", "nat"))))
    assert unseen(hops) == ["host firewall"]
    assert "filter, nat" in next(hop.saw for hop in hops if hop.name == "host firewall")
    assert unseen(half.leaving(side(overlay_rules=Rules(listed="nonsense")))) == ["overlay firewall"]


def test_traffic_control_counts_beside_the_rules() -> None:
    """A queue or filter on the way is named where the device is, with what `tc` is told; what may drop is said."""
    drop = Sieve("vxlan1", "egress", "filter bpf pref 3, a program", "filter del dev vxlan1 egress pref 3", Does.DROPS)
    hops = half.leaving(side(overlay_rules=Rules(traffic=(drop,))))
    assert wrong(hops) == ["overlay firewall"]
    named = next(hop for hop in hops if hop.state is State.WRONG)
    assert named.remedy == "myoverlay exec web -- tc filter del dev vxlan1 egress pref 3"
    assert wrong(half.leaving(side(host_rules=Rules(traffic=(drop._replace(device="ens3"),))))) == ["host firewall"]
    assert wrong(half.leaving(side(host_rules=Rules(traffic=(drop._replace(device="ens4"),))))) == []
    maybe = drop._replace(does=Does.MAYBE)
    assert unseen(half.leaving(side(overlay_rules=Rules(traffic=(maybe,))))) == ["overlay firewall"]
    # nft may be missing: what was read of the rest holds.
    assert wrong(half.leaving(side(overlay_rules=Rules(trouble="no nft", traffic=(drop,))))) == ["overlay firewall"]
    assert unseen(half.leaving(side(overlay_rules=Rules(trouble="no nft", traffic=(drop._replace(device="x"),))))) == [
        "overlay firewall"
    ]


def test_traffic_control_in_the_container_is_its_link() -> None:
    """Both ways; what may drop is not blamed."""
    for way in ("ingress", "egress"):
        sieve = Sieve("eth0", way, "qdisc x", "qdisc del dev eth0 root", Does.DROPS)
        hops = half.leaving(room(traffic=(sieve,)))
        assert wrong(hops) == ["container link"]
        named = next(hop for hop in hops if hop.state is State.WRONG)
        assert named.remedy == "nsenter --net=/proc/7/ns/net tc qdisc del dev eth0 root"
        assert unseen(half.leaving(room(traffic=(sieve._replace(does=Does.MAYBE),)))) == ["container link"]


def answer(host: HostId, name: str, *hops: Hop, **more: Any) -> PathAnswer:
    mine, theirs = (A, B) if host == ANN else (B, A)
    return PathAnswer(host=host, name=name, hops=hops, **({"here": (mine,), "there": theirs, "tunnel": TUNNEL} | more))


def broken(name: str) -> Hop:
    return hops.broken(name, "this", "that", "do so")


def right(name: str) -> Hop:
    return hops.make(name, False, "this", "", "")


SILENT = path.underlay(Reach.SILENT, B.vtep, 1450, 4789)


def named(near: PathAnswer, far: PathAnswer) -> tuple[str, str] | None:
    steps = path.whole(near, far)
    place = path.first_wrong(steps)
    return (steps[place].where, steps[place].hop.name) if place is not None else None


def test_nothing_came_back_and_nobody_knows_why() -> None:
    """Both halves are right and nothing comes through: what lies between the hosts is named."""
    assert named(answer(ANN, "ann", right("veth"), SILENT), answer(BOB, "bob", right("veth"))) == (
        "ann – bob",
        "underlay",
    )


@pytest.mark.parametrize("why", ["host firewall", "underlay route"])
def test_nothing_came_back_and_the_far_host_says_why(why: str) -> None:
    """The far host's firewall or route is wrong: that is named, not the silence it causes."""
    assert named(answer(ANN, "ann", SILENT), answer(BOB, "bob", broken(why))) == ("bob", why)
    assert named(answer(ANN, "ann", SILENT), answer(BOB, "bob", broken("veth"))) == ("ann – bob", "underlay")


def test_the_nearer_of_two_is_named() -> None:
    """Order is the packet's: near half, underlay, far half."""
    assert named(answer(ANN, "ann", broken("FDB row"), SILENT), answer(BOB, "bob", broken("veth"))) == (
        "ann",
        "FDB row",
    )
    assert named(answer(ANN, "ann", right("x")), answer(BOB, "bob", right("y"))) is None


def test_hosts_that_disagree() -> None:
    """Who believes another MAC, VTEP, VNI, UDP port or MTU than the other host has is named, before its rows."""
    stale = End(address=B.address, mac=B.mac, vtep=Address("192.0.2.9"), host=BOB)
    near = answer(ANN, "ann", right("bridge"), broken("neighbour row"), there=stale)
    assert named(near, answer(BOB, "bob")) == ("ann", "record")
    assert named(answer(ANN, "ann", there=None), answer(BOB, "bob")) == ("ann", "record")
    assert named(answer(ANN, "ann"), answer(BOB, "bob", there=None)) == ("bob", "record")
    for field, value in (("vni", 9), ("port", 8472), ("mtu", 1400)):
        other = msgspec.structs.replace(TUNNEL, **{field: value})
        assert named(answer(ANN, "ann"), answer(BOB, "bob", tunnel=other)) == ("ann", "definition")


def test_narrow_and_unasked() -> None:
    """Small packets alone come back: wrong. Nothing could be sent, or nobody was asked: nothing follows from it."""
    assert path.underlay(Reach.NARROW, B.vtep, 1450, 4789).state is State.WRONG
    assert path.underlay(Reach.WHOLE, B.vtep, 1450, 4789).state is State.RIGHT
    assert path.underlay(Reach.UNASKED, B.vtep, 1450, 4789).state is State.UNSEEN
    assert path.underlay(None, B.vtep, 1450, 4789).state is State.UNSEEN


def test_an_answer_travels() -> None:
    """Through the store and back it is the same; what is too long, too much or not printable is refused."""
    said = answer(BOB, "bob", broken("veth"), right("bridge"))
    read = decoder(PathAnswer)
    assert read(encode(said)) == said
    for bad in (
        {"name": "x\n"},
        {"hops": [{"name": "x", "state": "right", "saw": "y" * (SAID + 1)}]},
        {"hops": [{"name": "x", "state": "fine", "saw": ""}]},
        {"hops": [{"name": "x", "state": "right", "saw": "\x1b[2J"}]},
        {"hops": [{"name": "x", "state": "right", "saw": ""}] * (HOPS + 1)},
        {"here": [msgspec.to_builtins(A, enc_hook=str)] * 3},
    ):
        with pytest.raises(ValueError, match=r".+"):
            read(encode({**msgspec.to_builtins(said, enc_hook=str), **bad}))


def test_long_texts_of_a_kernel_are_cut() -> None:
    """A rule of any length fits into a hop."""
    hop = hops.make("host firewall", True, "x" * 5000, "y" * 5000, "z\n" * 900)
    assert max(map(len, (hop.saw, hop.wanted, hop.remedy))) <= SAID
