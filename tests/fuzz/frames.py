"""Frames on an overlay: ARP and ICMP as they are read, announcements (ARP, ND) as written, and the BPF programs that
choose what is read at all: each lets through what its reader would take.
"""

from __future__ import annotations

import io
import struct
from typing import NamedTuple

from myoverlay.kernel import frames, knock, probe
from myoverlay.kernel.capture import Packet, Pcap, outer_filter
from myoverlay.values import Address, Mac
from tests.fuzz.tape import Tape, bent, packets
from tests.fuzz.target import right

US = Mac("02:00:00:00:00:01"), Address("10.0.0.1")
THEM = Mac("02:00:00:00:00:02"), Address("10.0.0.2")
NONCE = b"abcd"
_CORPUS = packets("frames")


class Given(NamedTuple):
    """A frame that comes, and whom we would announce."""

    frame: bytes
    mac: bytes
    address: bytes


class Target:
    """Nothing is kept."""

    LIMITS: dict[str, int] = {}

    def make(self, tape: Tape) -> Given:
        frame = bent(tape, tape.pick(_CORPUS), _CORPUS, 9000)
        return Given(frame, tape.take(6), tape.take(tape.pick((4, 16))))

    def check(self, given: Given) -> None:
        raw = given.frame
        self._replies(raw)
        self._requests(raw)
        self._captured(raw)
        try:
            mac = Mac.unpack(given.mac)
        except ValueError:
            right(given.mac[0] & 1 or not any(given.mac), f"{given.mac.hex()} is refused")
            return
        self._announced(Address.unpack(given.address), mac)

    def _replies(self, raw: bytes) -> None:
        found = frames.read_arp_reply(raw, US[0])
        if found is not None:
            mac, address = found
            said = struct.pack("!6s6sHHHBBH6s4s6s", US[0].packed, mac.packed, 0x0806, 1, 0x0800, 6, 4, 2, mac.packed,
                               address.packed, US[0].packed)  # fmt: skip
            right(raw[:38] == said, f"{found} is no answer to us")
            right(_passes(probe._NO_REQUESTS, raw), "an answer that the socket never hears")
        echo = frames.read_echo_reply(raw, US)
        if echo is not None:
            mac, address, nonce, length = echo
            right(raw[:14] == US[0].packed + mac.packed + b"\x08\x00", f"{echo} is not for us")
            right(raw[26:34] == address.packed + US[1].packed and raw[38:42] == nonce, f"{echo} is not for us")
            right(length <= len(raw) - 14, f"{echo} claims more than came")
            right(_passes(probe._ECHO_REPLIES, raw), "an echo that the socket never hears")
        to = frames.echo_answered_to(raw, THEM[1], US[1], NONCE)
        if to is not None:
            right(to == raw[:6].hex(":") and raw[26:34] == THEM[1].packed + US[1].packed, f"{to} is no answer to us")
            right(_passes(knock._FILTER, raw), "an answer that the socket never hears")

    def _requests(self, raw: bytes) -> None:
        wanted = frames.read_arp_request(raw, THEM[1])
        if wanted is not None:
            right(raw[38:42] == wanted.packed and raw[28:32] == THEM[1].packed, f"{wanted} is not asked for")
            again = frames.arp_request(THEM[0], THEM[1], US[0], wanted)
            right(frames.read_arp_request(again, THEM[1]) == wanted, f"{wanted} is another when it is read again")
            right(_passes(knock._FILTER, raw), "a question that the socket never hears")

    def _captured(self, raw: bytes) -> None:
        """What is written into a file says how long it is."""
        file = io.BytesIO()
        Pcap(file).write(Packet(1_700_000_000_123_456_789, len(raw) + 5, raw))
        size, whole = struct.unpack_from("=II", file.getvalue(), 24 + 8)
        right(
            (size, whole) == (len(raw), len(raw) + 5) and file.getvalue()[40:] == raw, "a packet is written otherwise"
        )
        if _passes(outer_filter(4789, 7), raw):
            right(raw[12:14] in (b"\x08\x00", b"\x86\xdd") and b"\x12\xb5" in raw, "a packet of others is captured")

    def _announced(self, address: Address, mac: Mac) -> None:
        raw = frames.announcement(address, mac)
        if address.version == 4:
            right(raw[22:28] == raw[32:38] == raw[6:12] == mac.packed, "an announcement of another MAC")
            right(raw[28:32] == raw[38:42] == address.packed and raw[20:22] == b"\0\2", "an announcement of another")
            return
        right(
            raw[54:58] == b"\x88\0" + raw[56:58] and raw[21] == 255 and raw[62:78] == address.packed, "no announcement"
        )
        pseudo = raw[22:54] + struct.pack("!II", len(raw) - 54, 58)
        total = sum(struct.unpack(f"!{(len(pseudo) + len(raw) - 54) // 2}H", pseudo + raw[54:]))
        right(total % 0xFFFF == 0, "a checksum that nobody takes")

    def show(self, given: Given) -> str:
        return f"frame {given.frame[:200].hex()}, announced {given.address.hex()} at {given.mac.hex(':')}"

    def left(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        """Nothing is open."""


def _passes(steps: object, raw: bytes) -> bool:
    """Classic BPF, as far as ours goes (net/core/filter.c): what reads beyond the end lets nothing through."""
    program, at, value, index = list(steps), 0, 0, 0  # type: ignore[call-overload]
    while True:
        code, yes, no, number = program[at]
        at += 1
        if code == 0x06:
            return bool(number)
        if code in (0x15, 0x45):
            at += yes if (value == number if code == 0x15 else value & number) else no
        elif code == 0x05:
            at += number
        elif code == 0x74:
            value >>= number
        else:
            place = number + (index if code in (0x40, 0x48) else 0)
            size = {0x20: 4, 0x40: 4, 0x28: 2, 0x48: 2, 0x30: 1, 0xB1: 1}[code]
            if place + size > len(raw):
                return False
            found = int.from_bytes(raw[place : place + size], "big")
            value, index = (value, 4 * (found & 15)) if code == 0xB1 else (found, index)
