"""Frames that come out of a container after an echo: what is told of them, and that nothing else is."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from myoverlay.kernel import frames
from myoverlay.values import Address, Mac

OWN, OTHER = (Mac("02:42:0a:05:00:02"), Address("10.5.0.2")), (Mac("02:42:0a:05:00:03"), Address("10.5.0.3"))
NONCE = b"\x12\x34\x56\x78"


def reply(to: Mac = OTHER[0], nonce: bytes = NONCE) -> bytes:
    """An echo request from OWN made an answer."""
    raw = bytearray(frames.echo_request(OWN, (to, OTHER[1]), nonce, 60))
    raw[34] = frames.ECHO_REPLY
    return bytes(raw)


def test_an_answer_tells_where_it_goes() -> None:
    """The MAC it is sent to, whosoever that is; of another echo, to another, or a question it is none."""
    assert frames.echo_answered_to(reply(), OWN[1], OTHER[1], NONCE) == OTHER[0]
    assert frames.echo_answered_to(reply(OWN[0]), OWN[1], OTHER[1], NONCE) == OWN[0]
    assert frames.echo_answered_to(reply(nonce=b"\0\0\0\1"), OWN[1], OTHER[1], NONCE) is None
    assert frames.echo_answered_to(reply(), OTHER[1], OWN[1], NONCE) is None
    assert frames.echo_answered_to(frames.echo_request(OWN, OTHER, NONCE, 60), OWN[1], OTHER[1], NONCE) is None


def test_a_question_tells_for_whom() -> None:
    """The address whose MAC is asked for; an announcement of its own address, and another's question, tell nothing."""
    asked = frames.arp_request(OWN[0], OWN[1], OTHER[0], OTHER[1])
    assert frames.read_arp_request(asked, OWN[1]) == OTHER[1]
    assert frames.read_arp_request(asked, OTHER[1]) is None
    assert frames.read_arp_request(frames.arp_request(OWN[0], OWN[1], OTHER[0], OWN[1]), OWN[1]) is None
    assert frames.read_arp_request(frames.arp_announcement(*OWN[::-1]), OWN[1]) is None


@given(st.binary(max_size=80), st.integers(0, 80))
def test_whatever_else_comes_is_passed_over(raw: bytes, cut: int) -> None:
    """Cut off, made up, of another kind: None, never an exception."""
    for frame in (raw, reply()[:cut], raw + reply(), struct.pack("!12xH", frames.ETH_P_ARP) + raw):
        answered = frames.echo_answered_to(frame, OWN[1], OTHER[1], NONCE)
        assert answered is None or frame == reply()[: len(frame)]
        frames.read_arp_request(frame, OWN[1])
