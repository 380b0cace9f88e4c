"""`network create`: what is refused at once, what is fitted to the store, and what is chosen for all."""

from __future__ import annotations

from typing import Any

import pytest

from myoverlay.errors import Clash, Refused
from myoverlay.networks import NetworkPlan
from myoverlay.plan import blueprint
from myoverlay.plan.blueprint import Known, Wish
from myoverlay.plan.definition import MTU_OF_DOCKER
from myoverlay.values import Address, OverlayName, Pool, Subnet
from tests.pure.kit import definition

WEB = OverlayName("web")
NONE = Known(plans=(), pools=(), vnis={}, definition=None)


def wish(**changes: Any) -> Wish:
    return Wish(**({"name": WEB, "subnet": Subnet("10.5.0.0/24")} | changes))


def known(**changes: Any) -> Known:
    return Known(**({"plans": (), "pools": (), "vnis": {}, "definition": None} | changes))


def plan(name: str, subnet: str, **changes: Any) -> NetworkPlan:
    return NetworkPlan(**({"name": OverlayName(name), "id": "1" * 32, "subnet": Subnet(subnet)} | changes))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"options": {"vnni": "7"}}, "unknown option 'vnni': valid are overlay, vni"),
        ({"options": {"mtu": "12"}}, "option mtu: 12 is no MTU: 576 to 65535 are"),
        ({"options": {"overlay": "UP"}}, "'UP' is no overlay name"),
        ({"options": {"vtep": "192.0.2.1"}}, "192.0.2.1 is one host's address: give an interface that all hosts have"),
        ({"labels": {"myoverlay.network": "x"}}, "label myoverlay.network is ours"),
        ({"subnet": None, "gateway": Address("10.5.0.1")}, "--gateway needs --subnet"),
        ({"gateway": Address("10.6.0.1")}, "the gateway 10.6.0.1 is no host address of 10.5.0.0/24"),
        ({"aux": {"dns": Address("10.5.0.255")}}, "the aux address dns 10.5.0.255 is no host address"),
        ({"ip_range": Subnet("10.6.0.0/26")}, "the range 10.6.0.0/26 is outside 10.5.0.0/24"),
        ({"subnet": Subnet("10.5.0.0/31")}, "an IPv4 /8 to /30 can"),
        ({"subnet": Subnet("2001:db8::/64")}, "an IPv4 /8 to /30 can"),
        ({"name": OverlayName("bridge")}, "'bridge' is a name of Docker's own"),
        ({"labels": {str(n): "x" for n in range(65)}}, "65 labels are too many: up to 64 are allowed"),
        ({"labels": {"a": "b\n"}}, "labels: a name or text is longer than 255 characters or not printable"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(words: dict[str, Any], sentence: str) -> None:
    """Before anybody is asked; the sentence says what is allowed."""
    with pytest.raises(Refused) as caught:
        blueprint.check(wish(**words))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_good_words_are_options() -> None:
    """An interface for `vtep` is the same on all hosts."""
    assert blueprint.check(wish(options={"vtep": "eth1", "mtu": "1400"})).mtu == 1400
    assert blueprint.check(Wish(name=WEB)).vni is None


@pytest.mark.parametrize(
    ("words", "there", "sentence"),
    [
        (
            {},
            {"pools": (Pool(subnet=Subnet("10.5.0.0/25"), overlay=OverlayName("db")),)},
            "overlaps 10.5.0.0/25 of overlay db",
        ),
        ({}, {"vnis": {9: (OverlayName("db"), Subnet("10.0.0.0/8"))}}, "overlaps 10.0.0.0/8 of overlay db"),
        ({}, {"plans": (plan("db", "10.5.0.0/16"),)}, "overlaps 10.5.0.0/16 of network db"),
        ({}, {"plans": (plan("db", "10.6.0.0/16", options={"overlay": "web"}),)}, "overlay web is that of network db"),
        ({"options": {"vni": "9"}}, {"vnis": {9: None}}, "VNI 9 is taken by a key that cannot be read"),
        (
            {"options": {"vni": "9"}},
            {"plans": (plan("db", "10.6.0.0/16", options={"vni": "9"}),)},
            "VNI 9 is taken by network db",
        ),
        (
            {},
            {"definition": definition(overlay=WEB, subnet=Subnet("10.6.0.0/24"), gateway=None)},
            "is defined with subnet",
        ),
    ],
)
def test_what_the_store_holds_already_cannot_be_overruled(
    words: dict[str, Any], there: dict[str, Any], sentence: str
) -> None:
    """Pools, overlays and other networks are named."""
    with pytest.raises((Refused, Clash), match=sentence.replace(".", r"\.")):
        blueprint.agree(wish(**words), blueprint.check(wish(**words)), known(**there))


def test_a_network_that_goes_is_in_nobodys_way() -> None:
    """Its subnet may be taken again."""
    blueprint.agree(wish(), blueprint.check(wish()), known(plans=(plan("db", "10.5.0.0/16", going=True),)))


def test_what_is_left_open_is_chosen_for_all_hosts() -> None:
    """Subnet, VNI and MTU stand in the plan, so that no two hosts choose differently."""
    given = wish(options={MTU_OF_DOCKER: "1400"})
    made = blueprint.complete(given, subnet=Subnet("10.5.0.0/24"), vni=7, mtu=1400, known=NONE, maker="h1", made_at=5.0)
    assert made.options == {"vni": "7", "mtu": "1400"}
    assert made.overlay == WEB
    assert (made.maker, made.made_at, made.going) == ("h1", 5.0, False)
    assert len(blueprint.vnis_of(given, blueprint.check(given), NONE)) == blueprint.CANDIDATES


def test_an_overlay_that_exists_is_joined_as_it_is() -> None:
    """A network for an overlay that somebody made by hand takes everything from its definition."""
    there = known(definition=definition(vni=4242, mtu=1300, port=4790))
    given = wish(subnet=None, options={"overlay": "demo"})
    options = blueprint.check(given)
    blueprint.agree(given, options, there)
    assert blueprint.subnet_of(given, there) == "10.5.0.0/24"
    assert blueprint.vnis_of(given, options, there) == (4242,)
    assert (blueprint.mtu_of(options, there), blueprint.port_of(options, there)) == (1300, 4790)
    made = blueprint.complete(
        given, subnet=Subnet("10.5.0.0/24"), vni=4242, mtu=1300, known=there, maker="", made_at=0.0
    )
    assert made.gateway == "10.5.0.1"
    assert made.overlay == "demo"


def test_vnis_of_other_networks_are_not_offered() -> None:
    """Neither those of overlays nor those of networks that no host has made yet."""
    first = blueprint.vnis_of(wish(), blueprint.check(wish()), NONE)
    there = known(
        vnis={first[0]: (OverlayName("x"), Subnet("10.9.0.0/24"))},
        plans=(plan("y", "10.8.0.0/24", options={"vni": str(first[1])}),),
    )
    assert blueprint.vnis_of(wish(), blueprint.check(wish()), there)[0] == first[2]
