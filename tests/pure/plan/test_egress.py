"""Which networks lead to the outside by themselves, and under which address."""

from __future__ import annotations

import pytest

from myoverlay.errors import Refused
from myoverlay.plan.egress import POOL, choose, leg, wants
from myoverlay.values import Address

GATEWAY = Address("10.5.0.1")


@pytest.mark.parametrize(
    ("asked", "usual", "internal", "gateway", "wanted"),
    [
        (None, "own", False, GATEWAY, True),
        (None, "own", True, GATEWAY, False),
        (None, "own", False, None, False),
        (None, "docker", False, GATEWAY, False),
        ("own", "docker", False, GATEWAY, True),
        ("docker", "own", False, GATEWAY, False),
        ("docker", "own", True, None, False),
    ],
)
def test_who_leads_out(asked: str | None, usual: str, internal: bool, gateway: Address | None, wanted: bool) -> None:
    """What is asked goes before the setting; without a gateway, and on internal networks, nobody does."""
    assert wants(asked, usual, internal, gateway) is wanted


def test_what_was_asked_for_and_cannot_be_is_refused() -> None:
    """The setting's own wish gives way in silence; a person's word does not."""
    with pytest.raises(Refused, match="--internal"):
        wants("own", "docker", True, GATEWAY)
    with pytest.raises(Refused, match="needs a gateway"):
        wants("own", "docker", False, None)


def test_each_network_has_an_address_of_its_own() -> None:
    """The first that is free; networks that have none take none; and an end of it is told."""
    first = choose([])
    assert first == Address("169.254.80.1")
    second = choose([None, first])
    assert second == Address("169.254.80.2")
    assert choose([second, None]) == first
    everything = [POOL.at(number) for number in range(POOL.first, POOL.last + 1)]
    with pytest.raises(Refused, match=r"169\.254\.80\.0/20"):
        choose(everything)
    last = everything.pop()
    assert choose(everything) == last


def test_a_cable_is_named_by_its_address() -> None:
    """So that no two have one name, and a later run finds it; the kernel takes 15 characters."""
    one, other = (leg(Address(f"169.254.80.{n}"), "docker0", Address("172.17.0.1"), 1500) for n in (1, 2))
    assert one.link != other.link
    assert len(one.link) <= 15
