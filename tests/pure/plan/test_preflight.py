"""What answers mean, one sentence each."""

from __future__ import annotations

from typing import Any

import pytest

from myoverlay.errors import Refused
from myoverlay.networks import Answer, Question
from myoverlay.plan.preflight import (
    NEIGHBOURS,
    Verdict,
    choose_subnet,
    choose_vni,
    judge,
    least_mtu,
    to_reach,
)
from myoverlay.values import HostId, OverlayName, Subnet
from tests.pure.kit import ANN, BOB, EVE

AREA = Subnet("10.5.0.0/24")
NAMES = {ANN: "ann", BOB: "bob", EVE: "eve"}
ASKED = Question(id="0" * 32, asker=ANN, overlay=OverlayName("web"), area=AREA, vnis=(7, 8), port=4789, mtu=1450)


def answer(host: HostId = BOB, **changes: Any) -> Answer:
    fields: dict[str, Any] = {"host": host, "name": NAMES[host], "follows": True, "carries": 1450}
    return Answer(**(fields | changes))


def verdict(*answers: Answer, mtu: int = 1450, vni: int = 7) -> Verdict:
    given = {one.host: one for one in answers}
    names = {host: NAMES[host] for host in given}
    return judge(ASKED, AREA, vni, mtu, given, names)


def test_nothing_speaks_against_it() -> None:
    """No refusal, no warning; routes beside the subnet are no matter."""
    assert verdict(answer(), answer(EVE, routes=(Subnet("10.6.0.0/16"),))) == Verdict((), ())


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            {"routes": (Subnet("10.0.0.0/8"), Subnet("10.5.0.128/25"))},
            "subnet 10.5.0.0/24 overlaps the route 10.0.0.0/8 of host bob",
        ),
        ({"taken": {7: "device x"}}, "VNI 7 is taken on host bob by device x"),
        ({"taken": {0: "a program"}}, "UDP port 4789 is taken on host bob by a program"),
        ({"carries": 1400}, "MTU 1450 does not fit through the underlay of host bob, which carries 1400"),
    ],
)
def test_what_would_not_work_is_a_refusal(found: dict[str, Any], sentence: str) -> None:
    """One sentence for each reason, and it names the host."""
    assert verdict(answer(**found), answer(EVE)) == Verdict((sentence,), ())


def test_a_vni_that_was_not_chosen_does_not_matter() -> None:
    """Of several that were asked about only the one that is used is judged."""
    assert verdict(answer(taken={8: "device x"})) == Verdict((), ())
    assert choose_vni((7, 8), {BOB: answer(taken={7: "x"})}) == 8
    assert choose_vni((7,), {BOB: answer(taken={7: "x"})}) == 7


def test_a_silent_host_is_a_warning() -> None:
    """A host that did not answer is named; so are those that others do not reach, or not by full-size packets."""
    said = judge(ASKED, AREA, 7, 1450, {BOB: answer()}, {BOB: "bob", EVE: "eve"})
    assert said == Verdict((), ("host eve did not answer in time: what is free there is not known",))
    said = verdict(answer(silent=(EVE,)), answer(EVE, narrow=(BOB, ANN)))
    assert said.refusals == ()
    assert said.warnings == (
        "nothing comes through VXLAN (UDP port of the heartbeat) between host bob and host eve",
        f"packets of MTU 1450 do not come through between host {ANN.short} and host eve, smaller ones do",
    )


def test_the_host_that_most_do_not_reach_is_named_once() -> None:
    """Every pair is told in one sentence of the host that is in most of them."""
    said = verdict(answer(ANN, narrow=(EVE,)), answer(BOB, narrow=(EVE,)), answer(EVE, narrow=(ANN, BOB)))
    assert said.warnings == (
        "packets of MTU 1450 do not come through between host eve and hosts ann, bob, smaller ones do",
    )
    said = verdict(answer(ANN, carries=1400), answer(BOB, carries=1400), answer(EVE, carries=1300))
    assert said.refusals == (
        "MTU 1450 does not fit through the underlay of host eve, which carries 1300",
        "MTU 1450 does not fit through the underlay of hosts ann, bob, which carries 1400",
    )


def test_what_a_host_could_not_find_out_is_a_warning() -> None:
    """It is said with the host's name."""
    assert verdict(answer(unsure=("no route",))).warnings == ("host bob: no route",)


def test_a_subnet_is_free_everywhere() -> None:
    """Neither what the store has nor any host's route is in it; none left is one sentence."""
    base = Subnet("10.5.0.0/22")
    routes = {BOB: answer(routes=(Subnet("10.5.1.0/24"),)), EVE: answer(EVE, routes=(Subnet("10.5.2.128/25"),))}
    assert choose_subnet(base, [Subnet("10.5.0.0/24")], routes) == "10.5.3.0/24"
    with pytest.raises(Refused, match=r"no /24 of 10\.5\.0\.0/22 is free on all hosts"):
        choose_subnet(base, [Subnet("10.5.0.0/24"), Subnet("10.5.3.0/24")], routes)


def test_the_mtu_is_the_least_of_all() -> None:
    """Of hosts that say one; else what was asked about."""
    assert least_mtu(ASKED, {BOB: answer(carries=1400), EVE: answer(EVE, carries=8950)}) == 1400
    assert least_mtu(ASKED, {BOB: answer(carries=None)}) == 1450


def test_few_hosts_reach_for_all_and_many_for_a_few() -> None:
    """Everybody reaches for the asker; of few hosts each pair is tried, of many the load of each stays bounded."""
    few = [ANN, BOB, EVE]
    pairs = {(me, other) for me in few for other in to_reach(me, ANN, few)}
    assert pairs == {(a, b) for a in few for b in few if a != b}
    many = [HostId(f"{number:032x}") for number in range(100)]
    reached = {me: to_reach(me, many[3], many) for me in many}
    assert all(len(found) == NEIGHBOURS + 1 and found[0] == many[3] for me, found in reached.items() if me != many[3])
    assert all(me not in found for me, found in reached.items())
    assert {host for found in reached.values() for host in found} == set(many)
