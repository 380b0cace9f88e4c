"""A container's route and neighbour, told by what came out of it after an echo."""

from __future__ import annotations

from typing import Any

import pytest

from myoverlay.path import Heard, Link, State
from myoverlay.plan import half, overheard
from myoverlay.plan.overheard import Told
from tests.pure.plan.test_path import ETH0, A, B, side, unseen, wrong

OTHER = "02:42:66:66:66:66"
ENTER = "nsenter --net=/var/run/docker/netns/abc"


def judged(heard: Heard | None, far: Link | None = ETH0) -> list[Any]:
    return overheard.hops(Told(A, B, heard, far, ENTER, "10.5.0.0/24"))


@pytest.mark.parametrize("heard", [Heard(to=B.mac), Heard(asked=True), Heard(to=B.mac, asked=True)])
def test_who_answers_the_other_or_asks_for_it_is_right(heard: Heard) -> None:
    """Its answer goes to the other's MAC, or it asks for that by this interface: route and neighbour are right."""
    assert [(hop.name, hop.state) for hop in judged(heard)] == [
        ("container route", State.RIGHT),
        ("container neighbour", State.RIGHT),
    ]


@pytest.mark.parametrize(
    ("heard", "hop", "saw", "remedy"),
    [
        (Heard(to=OTHER), "container neighbour", f"10.5.0.3 lladdr {OTHER}", "ip neigh del 10.5.0.3 dev eth0"),
        (Heard(to=A.mac), "container neighbour", "ARP is off", "ip link set dev eth0 arp on"),
        (Heard(to=OTHER, holder="10.5.0.1"), "container route", "10.5.0.1", "ip route replace 10.5.0.3/32 dev eth0"),
        (Heard(others=True), "container route", "not answered by eth0", "ip route replace 10.5.0.0/24 dev eth0"),
        (
            Heard(others=True, beside=True, sought=("10.5.0.9",)), "container route",
            "it asked for the MAC of 10.5.0.9", "ip route replace 10.5.0.3/32 dev eth0",
        ),
    ],
)  # fmt: skip
def test_one_hop_is_named(heard: Heard, hop: str, saw: str, remedy: str) -> None:
    """What its answer shows to be wrong is one hop, which the plugin does not heal, with a command for the host."""
    hops = judged(heard)
    assert wrong(hops) == [hop]
    (named,) = [one for one in hops if one.state is State.WRONG]
    assert saw in named.saw
    assert named.remedy.startswith(f"{ENTER} {remedy}")
    assert not named.heals


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        (Heard(), "the container answers no echo: ICMP is off or filtered in it, or its route is wrong"),
        (Heard(sought=("10.5.0.9",)), "it asked for the MAC of 10.5.0.9 meanwhile"),
        (None, "no echo could be sent to it"),
    ],
)
def test_who_answers_nobody_is_not_blamed(heard: Heard | None, said: str) -> None:
    """Nothing follows from silence: both are unseen, in a sentence that says why, with what shows them."""
    hops = judged(heard)
    assert unseen(hops) == ["container route", "container neighbour"]
    assert all(said in hop.saw for hop in hops)
    assert [hop.remedy for hop in hops] == [
        f"see `{ENTER} ip route get 10.5.0.3`", f"see `{ENTER} ip neigh show 10.5.0.3`"
    ]  # fmt: skip


@pytest.mark.parametrize("far", [None, ETH0._replace(up=False), ETH0._replace(mac=OTHER)])
def test_behind_a_link_that_is_wrong_nothing_is_told(far: Link | None) -> None:
    """A cable without another end, one that is down, another MAC: the link is named, and not what cannot be known."""
    hops = judged(Heard(), far)
    assert unseen(hops) == ["container route", "container neighbour"]
    assert all("see the container link" in hop.saw for hop in hops)


def test_it_stands_in_for_a_room_that_cannot_be_entered() -> None:
    """Of a half the room is judged where it was seen, else the answer; the link in both."""
    hops = half.leaving(side(room=None, heard=Heard(to=OTHER)))
    assert wrong(hops) == ["container neighbour"]
    assert wrong(half.leaving(side(heard=Heard(to=OTHER)))) == []
    assert wrong(half.leaving(side(room=None, heard=Heard(to=B.mac), far=ETH0._replace(mtu=9000)))) == [
        "container link"
    ]
