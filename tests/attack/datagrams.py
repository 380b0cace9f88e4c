"""Datagrams as an attacker makes them: VXLAN with a packet inside, and UDP in fragments."""

from __future__ import annotations

import ipaddress
import socket
import struct

from myoverlay.kernel.netns import Namespace
from myoverlay.values import Address, Mac

#: Where the victim listens.
PORT = 7000
_SECRET = b"injected"
SENDER = Mac("02:66:66:66:66:66")


def checksum(raw: bytes) -> int:
    total = sum(struct.unpack(f"!{len(raw) // 2}H", raw + bytes(len(raw) & 1)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(source: str, target: str, payload: bytes, protocol: int, number: int = 1, at: int = 0, more: bool = False) -> bytes:  # fmt: skip # noqa: E501
    """An IPv4 packet, or the piece of one that begins at byte `at` (a multiple of eight)."""
    offset = at // 8 | (0x2000 if more else 0)
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), number, offset, 64, protocol, 0) + ends
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def udp(source: int, target: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", source, target, 8 + len(payload), 0) + payload


def frame(mac: Mac, source: str, target: Address) -> bytes:
    """What the victim's application would read: a UDP datagram in a frame of the overlay's."""
    return mac.packed + SENDER.packed + b"\x08\0" + packet(source, target, udp(PORT, PORT, _SECRET), socket.IPPROTO_UDP)


def vxlan(vni: int, inner: bytes) -> bytes:
    return b"\x08\0\0\0" + (vni << 8).to_bytes(4, "big") + inner


def send(ns: Namespace, target: str, data: bytes, port: int = 4789, times: int = 3, source: int = 0) -> str:
    """As any process may, from any port or `source`; what the kernel said where it refused."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with ns.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind(("", source))
        try:
            for _ in range(times):
                sock.sendto(data, (target, port))
        except PermissionError:
            return "EPERM"
    return ""


def send_raw(ns: Namespace, target: str, *packets: bytes) -> None:
    """Whole IPv4 packets, whoever they say they are from."""
    with ns.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for one in packets:
            sock.sendto(one, (target, 0))


class Ear:
    """The victim's application."""

    def __init__(self, ns: Namespace, address: str = "", port: int = PORT, family: int = socket.AF_INET) -> None:
        self._sock = ns.socket(family, socket.SOCK_DGRAM)
        self._sock.bind((address, port))

    def hears(self, seconds: float = 0.5) -> bool:
        """Does something come within that time?"""
        self._sock.settimeout(seconds)
        try:
            return bool(self._sock.recv(2048))
        except TimeoutError:
            return False

    def close(self) -> None:
        self._sock.close()

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
