"""Which VTEPs a host takes VXLAN from, and who may come out of which port."""

from __future__ import annotations

import errno

from myoverlay.fence import At, Bound, Fence, Pair, Way
from myoverlay.plan import guard
from myoverlay.plan.guard import Cover
from myoverlay.store.typed import Held
from myoverlay.values import Address, HostId, HostList, OverlayName, Peer
from tests.pure.kit import endpoint

ONE, TWO = Pair(4789, 0x700001), Pair(8472, 0x700002)
ME, A, B = Address("192.0.2.1"), Address("192.0.2.2"), Address("2001:db8::2")


def test_each_overlay_has_its_own_friends() -> None:
    """Who may send on one overlay may not on another, and a host takes nothing from its own address."""
    fence = guard.fence_of([Cover(ONE, ME, "eth0", frozenset({A, ME})), Cover(TWO, ME, "eth1", frozenset({B}))])
    assert fence == Fence(
        frozenset({4789, 8472}),
        frozenset({ONE, TWO}),
        frozenset({"eth0", "eth1"}),
        frozenset({At(ONE, ME), At(TWO, ME)}),
        frozenset({At(ONE, A), At(TWO, B)}),
        frozenset({Way(ONE, A, ME, "eth0")}),  # to B there is no way from an address of the other family
    )
    assert guard.live_on(fence, ONE) == {A}
    assert not guard.live_on(fence, Pair(4789, 0x700002))


def test_fences_are_added_and_taken_apart() -> None:
    """What is in one and not in the other, and both together; nothing is false."""
    small, more = Fence(ports=frozenset({1})), Fence(ports=frozenset({1, 2}), doors=frozenset({"eth0"}))
    assert more.without(small) == Fence(ports=frozenset({2}), doors=frozenset({"eth0"}))
    assert not small.without(more)
    assert small.beside(more) == more
    assert len(more) == 3


def test_lists_and_outsiders_are_live() -> None:
    """VTEPs of hosts' lists and of outsiders' keys may send; what can be nobody's address may not."""
    host, other = HostId("a" * 32), HostId("b" * 32)
    lists = {
        host: Held(HostList(host=host, overlay=OverlayName("demo"), vtep=A, records=()), 1),
        other: Held(HostList(host=other, overlay=OverlayName("demo"), vtep=Address("127.0.0.1"), records=()), 1),
    }
    outsider = Peer(address=Address("10.5.0.9"), mac=endpoint("10.5.0.9").mac, vtep=B, host=None, generation=0)
    assert guard.live(lists, [outsider]) == {A, B}
    assert guard.live({}, ()) == frozenset()


def test_an_endpoint_is_bound_to_its_port() -> None:
    """Port, MAC and address of an endpoint are one element."""
    one = endpoint("10.5.0.9")
    assert guard.bound([one]) == {Bound(one.port, one.mac, one.address)}


def test_what_helps_is_what_is_lacking() -> None:
    """A process without the right is not told to load a module."""
    assert guard.remedy(errno.EPERM) == "give the plugin CAP_NET_ADMIN"
    assert guard.remedy(errno.EPROTONOSUPPORT) == "load the kernel's nf_tables"
