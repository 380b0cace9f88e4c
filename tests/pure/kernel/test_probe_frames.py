"""The heartbeat's questions and answers as frames: scapy reads what we write, and nothing but an answer is one."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether

from myoverlay.kernel.frames import ARP_LENGTH, arp_request, echo_request, read_arp_reply, read_echo_reply
from myoverlay.values import Address, Mac
from tests.kernel.given import macs, v4

NONCES = st.binary(min_size=4, max_size=4)
US, THEM = (Mac("02:00:00:00:00:01"), Address("10.0.0.1")), (Mac("02:00:00:00:00:02"), Address("10.0.0.2"))


@given(macs, st.none() | v4, macs, v4)
def test_arp_requests_read_back(source: Mac, sender: Address | None, target: Mac, address: Address) -> None:
    """Straight to the MAC; an asker that does not say its address makes it a probe."""
    frame = Ether(arp_request(source, sender, target, address))
    assert (frame.dst, frame.src) == (target, source)
    arp = frame[ARP]
    assert (arp.op, arp.hwsrc, arp.psrc, arp.pdst) == (1, source, sender or "0.0.0.0", address)


@given(macs, v4, macs, v4, NONCES, st.integers(60, 9000))
def test_echo_requests_read_back(
    mac: Mac, address: Address, to: Mac, at: Address, nonce: bytes, length: int
) -> None:  # fmt: skip
    """Exactly as long as asked for, not to be fragmented, with checksums that scapy computes alike."""
    raw = echo_request((mac, address), (to, at), nonce, length)
    assert len(raw) == 14 + length
    frame = Ether(raw)
    assert (frame.dst, frame.src, frame[IP].src, frame[IP].dst) == (to, mac, address, at)
    assert (frame[IP].len, frame[IP].flags, frame[ICMP].type) == (length, "DF", 8)
    sums = frame[IP].chksum, frame[ICMP].chksum
    del frame[IP].chksum, frame[ICMP].chksum
    again = Ether(bytes(frame))
    assert (again[IP].chksum, again[ICMP].chksum) == sums


def arp_reply(**changes: object) -> bytes:
    """A good answer, with changes to the ARP part, and `dst`, `src` and `type` to Ethernet's."""
    ethernet = {key: changes.pop(key) for key in ("dst", "src", "type") if key in changes}
    arp = {"op": 2, "hwsrc": THEM[0], "psrc": THEM[1], "hwdst": US[0], "pdst": "0.0.0.0"} | changes
    return bytes(Ether(**{"dst": US[0], "src": THEM[0]} | ethernet) / ARP(**arp))


def echo_reply(nonce: bytes = b"abcd", size: int = 200, **changes: object) -> bytes:
    ethernet = {key: changes.pop(key) for key in ("dst", "src", "type") if key in changes}
    icmp = {key: changes.pop(key) for key in ("kind", "code") if key in changes}
    head = IP(**{"src": THEM[1], "dst": US[1]} | changes)
    ident, number = int.from_bytes(nonce[:2], "big"), int.from_bytes(nonce[2:], "big")
    body = ICMP(type=icmp.get("kind", 0), code=icmp.get("code", 0), id=ident, seq=number)
    return bytes(Ether(**{"dst": US[0], "src": THEM[0]} | ethernet) / head / body / bytes(size - 28))


def test_answers_are_understood() -> None:
    """Who answered; padding behind an ARP answer does not matter, nor does what follows an IP packet."""
    assert read_arp_reply(arp_reply(), US[0]) == THEM
    assert read_arp_reply(arp_reply() + bytes(18), US[0]) == THEM
    assert read_echo_reply(echo_reply(), US) == (*THEM, b"abcd", 200)
    assert read_echo_reply(echo_reply() + b"x", US) == (*THEM, b"abcd", 200)


@pytest.mark.parametrize(
    "wrong",
    [
        {"op": 1},
        {"op": 3},
        {"hwlen": 8},
        {"plen": 16},
        {"ptype": 0x86DD},
        {"hwtype": 6},
        {"type": 0x0800},
        {"dst": "ff:ff:ff:ff:ff:ff"},
        {"dst": "02:00:00:00:00:09"},
        {"hwdst": "02:00:00:00:00:09"},
        {"src": "02:00:00:00:00:09"},
        {"hwsrc": "02:00:00:00:00:09"},
        {"src": "03:00:00:00:00:02", "hwsrc": "03:00:00:00:00:02"},
        {"src": "00:00:00:00:00:00", "hwsrc": "00:00:00:00:00:00"},
    ],
    ids=str,
)
def test_what_is_no_arp_answer(wrong: dict[str, object]) -> None:
    """Each field is looked at."""
    assert read_arp_reply(arp_reply(**wrong), US[0]) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": 8},
        {"code": 1},
        {"proto": 17},
        {"version": 6},
        {"type": 0x0806},
        {"dst": "02:00:00:00:00:09"},
        {"src": "03:00:00:00:00:02"},
        {"src": "00:00:00:00:00:00"},
        {"len": 201},
    ],
    ids=str,
)
def test_what_is_no_echo(wrong: dict[str, object]) -> None:
    """Each field is looked at, and a packet that claims more than came is none."""
    assert read_echo_reply(echo_reply(**wrong), US) is None


def test_an_echo_for_another_is_none() -> None:
    """The address inside is ours."""
    assert read_echo_reply(echo_reply(), (US[0], Address("10.0.0.9"))) is None


@given(st.binary(max_size=120), st.integers(0, 1))
def test_anything_may_come(raw: bytes, kind: int) -> None:
    """Garbage, and the beginning of an answer followed by garbage, raises nothing and is no other's answer."""
    start = (arp_reply(), echo_reply())[kind]
    for frame in (raw, start[: len(raw)], start[:20] + raw, start[:30] + raw):
        found = read_arp_reply(frame, US[0])
        assert found is None or (len(frame) >= ARP_LENGTH and found[0] == THEM[0])
        echo = read_echo_reply(frame, US)
        assert echo is None or (len(frame) >= 42 and echo[0] == THEM[0])


@given(NONCES, st.integers(28, 1500))
def test_a_nonce_comes_back(nonce: bytes, size: int) -> None:
    """What was asked with is what is answered with, at any length."""
    assume(nonce != b"abcd")
    found = read_echo_reply(echo_reply(nonce, size), US)
    assert found is not None
    assert found[2:] == (nonce, size)
