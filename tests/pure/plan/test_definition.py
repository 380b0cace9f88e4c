"""Options, names, VNIs and agreement between hosts: every sentence a person may read about them."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myoverlay.errors import Clash, Refused
from myoverlay.plan.definition import (
    MTU_OF_DOCKER,
    OPTIONS,
    Options,
    agree,
    carries,
    check_fits,
    name_of,
    read_options,
    vni_taken,
    vnis,
)
from myoverlay.values import VNI_FIRST, VNI_LAST, Address, OverlayName, Subnet
from tests.pure.kit import SUBNET, definition

GOOD = {
    "overlay": (("demo", "demo"), ("10.5.0.0-24", "10.5.0.0-24")),
    "vni": (("1", 1), ("16777215", 16777215)),
    "mtu": (("576", 576), ("9000", 9000)),
    "port": (("1", 1), ("65535", 65535)),
    "vtep": (("192.0.2.1", "192.0.2.1"), ("eth1", "eth1"), ("fd00::1", "fd00::1")),
    "records": (("demo-1", "demo-1"), ("a/b", "a/b")),
    "outsiders": (("on", True), ("off", False)),
    "egress": (("own", "own"), ("docker", "docker")),
    MTU_OF_DOCKER: (("1400", 1400),),
}
BAD = {
    "overlay": ("", "Demo", "a/b", "a" * 64),
    "vni": ("", "0", "16777216", "-1", "0x10", "1.0", "７", "9" * 5000),
    "mtu": ("575", "65536", "big"),
    "port": ("0", "65536", "vxlan"),
    "vtep": ("", "192.0.2.0/24", "x" * 46),
    "records": ("", "/", "a/", "a//b", ".."),
    "outsiders": ("yes", "ON", ""),
    "egress": ("on", "none", ""),
    MTU_OF_DOCKER: ("0", "1450.5"),
}


def test_every_option_is_tried() -> None:
    """The cases here cover the options table, row by row."""
    assert set(GOOD) == set(BAD) == {option.name for option in OPTIONS}


def test_nothing_asked_is_nothing_given() -> None:
    """Without `-o` every option is None: what the definition holds may be left out."""
    assert read_options({}) == Options()


@pytest.mark.parametrize(
    ("name", "text", "value"), [(name, text, value) for name, cases in GOOD.items() for text, value in cases]
)
def test_a_good_option_is_read(name: str, text: str, value: object) -> None:
    """Each option's text becomes its value, and no other option is touched."""
    (option,) = (option for option in OPTIONS if option.name == name)
    assert read_options({name: text}) == Options(**{option.field: value})


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_a_bad_option_is_refused_by_name(name: str, text: str) -> None:
    """The sentence begins with the option that is wrong."""
    with pytest.raises(Refused, match=f"^option {name}: "):
        read_options({name: text})


@pytest.mark.parametrize("name", ["nmae", "Overlay", "", "com.docker.network.bridge.name"])
def test_an_unknown_option_names_all_valid_ones(name: str) -> None:
    """A misspelt option is never passed over, and the sentence says what could have been meant."""
    with pytest.raises(Refused, match="unknown option") as refusal:
        read_options({name: "x"})
    assert repr(name) in str(refusal.value)
    assert all(option.name in str(refusal.value) for option in OPTIONS)


@pytest.mark.parametrize("turned", [False, True])
def test_both_names_of_the_mtu_must_agree(turned: bool) -> None:
    """`mtu` and Docker's own option may stand together where they say the same; else each is named with its value."""
    assert read_options({"mtu": "1400", MTU_OF_DOCKER: "1400"}).mtu == 1400
    given = [("mtu", "1400"), (MTU_OF_DOCKER, "1300")]
    with pytest.raises(Refused, match=f"mtu=1400 and {MTU_OF_DOCKER}=1300 contradict"):
        read_options(dict(reversed(given) if turned else given))


A, B = OverlayName("a"), OverlayName("b")


@pytest.mark.parametrize(
    ("option", "ipam", "written", "name"),
    [
        (A, None, None, "a"),  # another IPAM driver, with -o overlay=
        (A, None, False, "a"),
        (A, None, True, "a"),
        (None, B, False, "b"),  # --ipam-opt overlay= alone
        (None, B, True, "b"),
        (A, A, True, "a"),
        (None, None, True, "10.5.0.0-24"),  # our IPAM, and a person wrote --subnet
    ],
)
def test_name_of(option: OverlayName | None, ipam: OverlayName | None, written: bool | None, name: str) -> None:
    """The name a person gave, in either place, else the subnet where a person wrote it (design section 3)."""
    assert name_of(option, ipam, SUBNET, written) == name


@pytest.mark.parametrize(
    ("option", "ipam", "written", "words"),
    [
        (None, None, None, ("-o overlay=NAME is required", "another IPAM driver", "--ipam-driver")),
        (None, None, False, ("-o overlay=NAME or --subnet", "chosen automatically")),
        (A, B, True, ("overlay=a", "--ipam-opt overlay=b", "contradict")),
        (A, B, None, ("overlay=a", "--ipam-opt overlay=b", "contradict")),
    ],
)
def test_name_of_refuses(
    option: OverlayName | None, ipam: OverlayName | None, written: bool | None, words: tuple[str, ...]
) -> None:
    """A subnet that nobody chose joins no strangers, and two names are no name."""
    with pytest.raises(Refused) as refusal:
        name_of(option, ipam, SUBNET, written)
    assert all(word in str(refusal.value) for word in words)


@pytest.mark.parametrize("name", ["a", "demo", "10.5.0.0-24"])
def test_vnis_cover_the_range_without_repeat(name: str) -> None:
    """From wherever a name starts, each VNI of the range comes exactly once, in the same order every time."""
    order = list(vnis(OverlayName(name)))
    assert sorted(order) == list(range(VNI_FIRST, VNI_LAST + 1))
    assert order[:50] == list(islice(vnis(OverlayName(name)), 50))


def test_names_start_at_different_vnis() -> None:
    """Overlays of different names seldom collide at their first try."""
    starts = {next(vnis(OverlayName(f"overlay-{number}"))) for number in range(100)}
    assert len(starts) > 95


def test_agree_with_what_is_defined() -> None:
    """Who asks for the same, or leaves out what the definition holds, agrees."""
    of = definition(records="demo-1")
    same = Options(vni=of.vni, mtu=of.mtu, port=of.port, records=of.records, vtep="eth1", outsiders=False)
    agree(of, same, of.subnet, of.gateway)
    agree(of, Options(), of.subnet, None)


@pytest.mark.parametrize(
    ("options", "subnet", "gateway", "what", "mine", "theirs"),
    [
        ({}, "10.6.0.0/24", None, "subnet", "10.6.0.0/24", "10.5.0.0/24"),
        ({}, "10.5.0.0/24", "10.5.0.2", "gateway", "10.5.0.2", "10.5.0.1"),
        ({"vni": 7}, "10.5.0.0/24", None, "vni", "7", str(0x700001)),
        ({"mtu": 1400}, "10.5.0.0/24", None, "mtu", "1400", "1450"),
        ({"port": 8472}, "10.5.0.0/24", None, "port", "8472", "4789"),
        ({"records": "mine"}, "10.5.0.0/24", None, "records", "mine", "none"),
    ],
)
def test_disagreement_shows_both_values(
    options: dict[str, object], subnet: str, gateway: str | None, what: str, mine: str, theirs: str
) -> None:
    """One sentence says what is defined and what this host asks for."""
    with pytest.raises(Refused, match=f"overlay demo is defined with {what} ") as refusal:
        agree(definition(), Options(**options), Subnet(subnet), Address(gateway) if gateway else None)  # type: ignore[arg-type]
    assert f"{what} {theirs}, this host asks for {mine}" in str(refusal.value)


def test_a_disagreement_about_the_subnet_says_how_to_agree() -> None:
    """The usual mistake (another IPAM driver chose) comes with the two ways out."""
    with pytest.raises(Refused, match=r"use --subnet 10\.5\.0\.0/24, or .* --ipam-opt overlay=demo"):
        agree(definition(), Options(), Subnet("172.18.0.0/16"), None)


@pytest.mark.parametrize(("vtep", "overhead"), [("192.0.2.1", 50), ("fd00::1", 70)])
def test_carries(vtep: str, overhead: int) -> None:
    """VXLAN over IPv4 takes 50 bytes, over IPv6 70."""
    assert carries(1500, Address(vtep)) == 1500 - overhead


@given(st.integers(576, 65535), st.integers(0, 65535))
def test_fits_exactly_where_the_underlay_carries_it(mtu: int, carried: int) -> None:
    """A host is refused if and only if its route carries less than the overlay's MTU, with both numbers."""
    of = definition(mtu=mtu)
    if carried >= mtu:
        check_fits(of, carried, "eth0")
    else:
        with pytest.raises(Refused, match=f"MTU {mtu}, but eth0 carries only {carried}: .*mtu={carried}"):
            check_fits(of, carried, "eth0")


def test_a_taken_vni_names_its_holder() -> None:
    """The refusal is a clash, and says who has it and what to do."""
    refusal = vni_taken(7, "overlay other")
    assert isinstance(refusal, Clash)
    assert str(refusal).startswith("VNI 7 is taken by overlay other: ")
    assert "-o vni=" in str(refusal)
