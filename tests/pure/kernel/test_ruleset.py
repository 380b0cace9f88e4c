"""Rules of the packet filter, from their messages: which drop a UDP port."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myoverlay.kernel.rtnetlink import attribute
from myoverlay.kernel.ruleset import drops_port

NESTED = 0x8000


def expression(name: str, data: bytes) -> bytes:
    body = attribute(1, name.encode() + b"\0") + attribute(NESTED | 2, data)
    return attribute(NESTED | 1, body)


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value))


def payload(offset: int = 2, length: int = 2, base: int = 2) -> bytes:
    return expression("payload", number(1, 8) + number(2, base) + number(3, offset) + number(4, length))


def compare(port: int, op: int = 0) -> bytes:
    value = attribute(NESTED | 3, attribute(1, struct.pack("!H", port)))
    return expression("cmp", number(1, 8) + number(2, op) + value)


def verdict(code: int) -> bytes:
    return expression("immediate", number(1, 0) + attribute(NESTED | 2, attribute(NESTED | 2, number(1, code))))


def udp(first: int, last: int, inverted: int = 0, name: str = "udp") -> bytes:
    info = struct.pack("=HHHHB3x", 0, 0xFFFF, first, last, inverted)
    return expression("match", attribute(1, name.encode() + b"\0") + attribute(3, info))


DROP, ACCEPT, JUMP = verdict(0), verdict(1), verdict(0xFFFFFFFD)
REJECT = expression("reject", number(1, 0))


@pytest.mark.parametrize(
    ("rule", "drops"),
    [
        (payload() + compare(4789) + DROP, True),
        (payload() + compare(4789) + REJECT, True),
        (payload() + compare(4789) + ACCEPT, False),
        (payload() + compare(4789) + JUMP, False),
        (payload() + compare(4790) + DROP, False),
        (payload(offset=0) + compare(4789) + DROP, False),
        (payload(base=1) + compare(4789) + DROP, False),
        (payload() + compare(4789, op=1) + DROP, False),
        (compare(4789) + DROP, False),
        (DROP, False),
        (udp(4789, 4789) + DROP, True),
        (udp(4000, 5000) + DROP, True),
        (udp(4790, 5000) + DROP, False),
        (udp(53, 53, inverted=2) + DROP, True),
        (udp(0, 0xFFFF) + DROP, False),
        (udp(4789, 4789, name="tcp") + DROP, False),
        (udp(4789, 4789) + expression("target", attribute(1, b"REJECT\0")), True),
        (udp(4789, 4789) + expression("target", attribute(1, b"LOG\0")), False),
        (b"", False),
    ],
)
def test_a_rule_is_understood(rule: bytes, drops: bool) -> None:
    """The destination port by nft's own words and by iptables' match; the end must be drop or reject."""
    assert drops_port(rule, 4789) is drops


@given(st.binary(max_size=200))
def test_whatever_comes_is_no_failure(raw: bytes) -> None:
    """Bytes that are no expressions are no rule that drops, and never raise."""
    assert drops_port(raw, 4789) in (False, True)


@given(st.integers(0, 200))
def test_a_message_that_is_cut_off_is_no_failure(length: int) -> None:
    """Wherever a message ends, it is read without raising."""
    drops_port((payload() + compare(4789) + DROP)[:length], 4789)
