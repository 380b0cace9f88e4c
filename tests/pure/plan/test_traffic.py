"""Traffic control judged without a kernel: what a frame meets, what it does not, and what cannot be told."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from myoverlay.kernel import traffic as kernel
from myoverlay.kernel.rtnetlink import attribute
from myoverlay.path import Does, End, Key, Sieve, Tunnel
from myoverlay.plan.traffic import Pass, inner_frame, outer_frame, stops
from myoverlay.values import Address, Mac
from tests.pure.kit import ANN, BOB

A = End(address=Address("10.5.0.2"), mac=Mac("02:42:0a:05:00:02"), vtep=Address("192.0.2.1"), host=ANN)
B = End(address=Address("10.5.0.3"), mac=Mac("02:42:0a:05:00:03"), vtep=Address("192.0.2.2"), host=BOB)
TUNNEL = Tunnel(vni=0x700001, port=4789, mtu=1450)
INNER, OUTER = inner_frame(A, B, 1450), outer_frame(A.vtep, B.vtep, TUNNEL)
WAY = [Pass("eth0", "egress")]


def sieve(does: Does = Does.DROPS, **more: Any) -> Sieve:
    return Sieve(**{"device": "eth0", "way": "egress", "said": "filter x", "find": "filter del x", "does": does} | more)


def key(at: int, value: bytes, mask: bytes | None = None) -> Key:
    return Key(at, mask or b"\xff" * len(value), value)


MEETS = {
    "all": ((), INNER, True),
    "its port in VXLAN": ((key(22, b"\x12\xb5"),), OUTER, True),
    "another port": ((key(22, b"\x12\xb6"),), OUTER, False),
    "its VNI": ((key(32, b"\x70\0\x01"),), OUTER, True),
    "another VNI": ((key(32, b"\x70\0\x02"),), OUTER, False),
    "its addresses": ((key(12, A.address.packed), key(16, B.address.packed)), INNER, True),
    "a part of an address": ((key(12, b"\x0a\x05\xff\xff", b"\xff\xff\0\0"),), INNER, True),
    "its MAC": ((key(-14, B.mac.packed),), INNER, True),
    "another's MAC": ((key(-8, B.mac.packed),), INNER, False),
    "its kind": ((key(-2, b"\x08\0"),), INNER, True),
    "a length": ((key(2, b"\x05\xaa"),), INNER, None),
    "beyond what is known": ((key(90, b"\0"),), INNER, None),
    "unknown, and another address": ((key(2, b"\x05"), key(12, b"\x0b")), INNER, False),
    "keys that cannot be read": (None, INNER, None),
    "a transport that is not said": ((key(9, b"\x11"),), INNER, None),
    "UDP in VXLAN": ((key(9, b"\x11"),), OUTER, True),
}


@pytest.mark.parametrize("name", MEETS)
def test_a_filter_meets_what_it_asks_for(name: str) -> None:
    """True is sure, what hangs on unknown bytes may be, false is nothing."""
    keys, frame, meets = MEETS[name]
    found = stops([sieve(keys=keys)], frame, WAY)
    assert (found.sure if found is not None else False) == (meets is True)
    assert (found is None) == (meets is False)


def test_a_frame_longer_than_a_queue_takes_is_dropped() -> None:
    """At full size, with Ethernet before it, and around it what VXLAN adds."""
    assert (INNER.length, OUTER.length) == (1464, 1514)
    assert stops([sieve(longest=1464)], INNER, WAY) is None
    assert stops([sieve(longest=1463)], INNER, WAY) is not None
    assert outer_frame(Address("fd00::1"), Address("fd00::2"), TUNNEL).length == 1534


def test_only_what_lies_on_the_way_counts() -> None:
    """Another device, the other direction, another protocol; what does nothing."""
    for other in ({"device": "lo"}, {"way": "ingress"}, {"protocol": 0x86DD}, {"does": Does.NOTHING}):
        assert stops([sieve(**other)], INNER, WAY) is None  # type: ignore[arg-type]
    assert stops([sieve(way="ingress")], INNER, [*WAY, Pass("eth0", "ingress")]) is not None


def test_what_was_let_pass_is_not_asked_again() -> None:
    """A filter that accepts comes first; one that accepts perhaps decides nothing; what may be is said, not blamed."""
    assert stops([sieve(Does.PASSES), sieve()], INNER, WAY) is None
    assert stops([sieve(Does.PASSES, keys=(key(12, b"\x0b"),)), sieve()], INNER, WAY).sure  # type: ignore[union-attr]
    unsure = stops([sieve(Does.MAYBE), sieve(Does.PASSES)], INNER, WAY)
    assert unsure is not None
    assert not unsure.sure


# -- as the kernel tells it ----------------------------------------------------------------------------------------


def told(kind: str, *options: bytes, protocol: int = 3, chain: int = 0) -> Sieve | None:
    body = struct.pack("=BxxxiIII", 0, 2, 1, 0xFFFFFFF3, 7 << 16 | socket_order(protocol))
    body += attribute(1, kind.encode() + b"\0") + attribute(2, b"".join(options))
    return kernel.decode(body + (attribute(11, struct.pack("=I", chain)) if chain else b""), "eth0", "egress", "egress")


def socket_order(protocol: int) -> int:
    return int(struct.unpack("=H", struct.pack("!H", protocol))[0])


def action(kind: str, parameters: bytes) -> bytes:
    inside = attribute(1, kind.encode() + b"\0") + attribute(2, attribute(2, parameters))
    return attribute(1, inside)


DROP = action("gact", struct.pack("=IIiii", 1, 0, 2, 1, 1))
PASS = action("gact", struct.pack("=IIiii", 1, 0, 0, 1, 1))
MIRROR = action("mirred", struct.pack("=IIiiiiI", 1, 0, 3, 1, 1, 2, 5))
REDIRECT = action("mirred", struct.pack("=IIiiiiI", 1, 0, 4, 1, 1, 1, 5))


@pytest.mark.parametrize(
    ("actions", "does"),
    [
        (DROP, Does.DROPS),
        (PASS, Does.PASSES),
        (MIRROR, Does.NOTHING),
        (MIRROR + DROP, Does.DROPS),
        (REDIRECT, Does.DROPS),
        (action("pedit", b"\0" * 40), Does.MAYBE),
        (action("police", b"\0" * 40), Does.MAYBE),
        (b"", Does.NOTHING),
    ],
)
def test_actions(actions: bytes, does: Does) -> None:
    """A copy lets the packet go on; what changes it or counts it may take it away."""
    found = told("matchall", attribute(2, actions))
    assert found is not None
    assert found.does is does
    assert found.keys == ()


def test_flower_is_read_by_its_keys() -> None:
    """Type, protocol, port with its mask, addresses; with a key of another kind nothing is sure."""
    plain = [attribute(3, DROP), attribute(8, b"\x08\0"), attribute(9, b"\x11"), attribute(22, b"\0" * 4),
             attribute(21, b"\x12\xb5"), attribute(38, b"\xff\xff"), attribute(86, b"\0" * 4)]  # fmt: skip
    found = told("flower", *plain, protocol=0x0800)
    assert found is not None
    assert stops([found], OUTER, WAY) is not None
    other = told("flower", *plain[:4], attribute(21, b"\0\x35"), attribute(38, b"\xff\xff"), protocol=0x0800)
    assert other is not None
    assert stops([other], OUTER, WAY) is None
    vlan = told("flower", *plain, attribute(23, b"\0\x05"), protocol=0x0800)
    assert vlan is not None
    assert vlan.keys is None


def test_what_is_not_understood_is_not_sure() -> None:
    """Filters of other kinds, of other chains, of u32 with more than keys; and nothing at all for half a message."""
    for found in (
        told("basic", attribute(3, DROP)),
        told("matchall", attribute(2, DROP), chain=5),
        told("u32", attribute(5, b"\0" * 16), attribute(7, DROP), attribute(10, b"\0" * 12)),
        told("u32", attribute(5, b"\1\0\1" + b"\0" * 13), attribute(7, DROP)),
    ):
        assert found is not None
        assert found.keys is None
    assert told("u32", attribute(4, b"\0" * 4)) is None
    assert told("matchall") is None
    assert kernel.decode(b"\0" * 8, "eth0", "egress", "egress") is None


def test_queues() -> None:
    """What loses all, what loses some, and what only delays."""

    def netem(loss: int) -> bytes:
        return struct.pack("=IIIIII", 0, 1000, loss, 0, 0, 0)

    assert kernel.queue("eth0", "netem", netem(0)) is None
    assert kernel.queue("eth0", "netem", netem(0xFFFFFFFF)).does is Does.DROPS  # type: ignore[union-attr]
    some = kernel.queue("eth0", "netem", netem(0x80000000))
    assert some is not None
    assert (some.does, some.said) == (Does.MAYBE, "qdisc netem, which loses 50%")
    assert kernel.queue("eth0", "blackhole", b"").does is Does.DROPS  # type: ignore[union-attr]
    assert kernel.queue("eth0", "fq_codel", b"\0" * 40) is None
    assert kernel.queue("eth0", "tbf", b"") is None
    assert kernel.program(b"") is kernel.program(b"1234567") is Does.MAYBE
