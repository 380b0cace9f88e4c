"""Which pool, which address: choices over what is taken."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myoverlay.errors import Clash, Refused
from myoverlay.plan.pools import candidates, check_address, check_pool, choose_pool, reserve_size
from myoverlay.values import Address, OverlayName, Pool, Subnet
from tests.pure.kit import ANN, SUBNET

BASE = Subnet("10.128.0.0/20")


@pytest.mark.parametrize(
    ("subnet", "size"),
    [
        ("10.0.0.0/8", 8),
        ("10.5.0.0/23", 8),
        ("10.5.0.0/24", 7),
        ("10.5.0.0/25", 3),
        ("10.5.0.0/27", 0),
        ("10.5.0.0/30", 0),
        ("fd00::/64", 8),
    ],
)
def test_the_reserve_is_a_share(subnet: str, size: int) -> None:
    """A host keeps eight addresses or a 32nd of the pool, whichever is less."""
    assert reserve_size(Subnet(subnet)) == size


parts = st.builds(
    lambda number, length: Subnet(str(ipaddress.ip_network((number, length), strict=False))),
    st.integers(int(ipaddress.ip_address("10.127.255.0")), int(ipaddress.ip_address("10.128.17.255"))),
    st.integers(18, 32),
)


@given(st.lists(parts, max_size=20))
def test_an_automatic_pool_overlaps_nothing(taken: list[Subnet]) -> None:
    """The chosen /24 lies in the base beside all that is taken, is the first such, and is refused only if none is."""
    free = [
        Subnet(f"10.128.{third}.0/24")
        for third in range(16)
        if not any(Subnet(f"10.128.{third}.0/24").overlaps(other) for other in taken)
    ]
    if free:
        assert choose_pool(BASE, taken) == free[0]
    else:
        with pytest.raises(Refused, match=r"no /24 of 10\.128\.0\.0/20 is free on this host: .*--subnet"):
            choose_pool(BASE, taken)


def test_choosing_passes_over_the_other_family() -> None:
    """A host's IPv6 routes take nothing of an IPv4 base."""
    assert choose_pool(BASE, [Subnet("::/0")]) == "10.128.0.0/24"
    with pytest.raises(Refused, match="no /24"):
        choose_pool(BASE, [Subnet("0.0.0.0/0")])


A, B = OverlayName("a"), OverlayName("b")


def pool(subnet: str, overlay: OverlayName | None) -> Pool:
    return Pool(subnet=Subnet(subnet), overlay=overlay, users=(ANN,))


@pytest.mark.parametrize(
    ("subnet", "overlay", "others"),
    [
        ("10.5.0.0/24", A, []),
        ("10.5.0.0/24", A, [pool("10.6.0.0/24", B)]),
        ("10.5.0.0/24", A, [pool("10.5.0.0/24", A)]),
        ("10.5.0.0/24", None, [pool("10.5.0.0/24", A)]),  # which overlay it is for is not said yet
        ("10.5.0.0/24", A, [pool("10.5.0.0/24", None)]),
        ("10.5.0.0/24", A, [pool("fd00::/8", B)]),
    ],
)
def test_a_pool_may_be_used(subnet: str, overlay: OverlayName | None, others: list[Pool]) -> None:
    """The same pool for the same overlay, or one that overlaps nothing."""
    check_pool(Subnet(subnet), overlay, others)


@pytest.mark.parametrize(
    ("subnet", "overlay", "other", "words"),
    [
        ("10.5.0.0/24", A, pool("10.5.0.0/24", B), ("belongs to overlay b", "not to a")),
        ("10.5.0.0/24", A, pool("10.5.0.0/16", B), ("overlaps 10.5.0.0/16 of overlay b", "--subnet")),
        ("10.5.0.0/16", A, pool("10.5.7.0/24", A), ("overlaps 10.5.7.0/24 of overlay a",)),
        ("10.5.0.0/16", None, pool("10.5.7.0/24", None), ("overlaps 10.5.7.0/24", "being created")),
    ],
)
def test_a_pool_that_clashes_names_the_first(
    subnet: str, overlay: OverlayName | None, other: Pool, words: tuple[str, ...]
) -> None:
    """An equal pool of another overlay, and any overlap, is refused naming who has it."""
    with pytest.raises(Clash) as refusal:
        check_pool(Subnet(subnet), overlay, [pool("10.9.0.0/24", B), other])
    assert all(word in str(refusal.value) for word in words)


def test_an_address_must_be_a_hosts() -> None:
    """Network, broadcast and foreign addresses are refused with the range that is allowed, the gateway by name."""
    check_address(SUBNET, Address("10.5.0.254"), Address("10.5.0.1"))
    for bad in ("10.5.0.0", "10.5.0.255", "10.6.0.3", "fd00::3"):
        with pytest.raises(Refused, match=f"{bad} is no host address .*: 10.5.0.1 to 10.5.0.254 are"):
            check_address(SUBNET, Address(bad), None)
    with pytest.raises(Refused, match=r"10\.5\.0\.1 is the gateway"):
        check_address(SUBNET, Address("10.5.0.1"), Address("10.5.0.1"))


hosts = st.integers(0, 255).map(lambda last: Address(f"10.5.0.{last}"))


@given(
    st.sets(hosts),
    st.none()
    | st.builds(
        lambda last, length: Subnet(str(ipaddress.ip_network((0x0A050000 + last, length), strict=False))),
        st.integers(0, 255),
        st.integers(24, 32),
    ),
)
def test_candidates_are_the_free_hosts_in_order(taken: set[Address], within: Subnet | None) -> None:
    """Exactly the hosts of the pool, inside the range if there is one, that nobody has; lowest first."""
    area = ipaddress.ip_network(str(within or SUBNET))
    expected = [f"10.5.0.{last}" for last in range(1, 255) if ipaddress.ip_address(f"10.5.0.{last}") in area]
    assert list(candidates(SUBNET, within, taken)) == [one for one in expected if one not in taken]


def test_a_huge_pool_is_not_walked() -> None:
    """The first candidates of a /64 come at once."""
    assert next(candidates(Subnet("fd00::/64"), None, {Address("fd00::1")})) == "fd00::2"
