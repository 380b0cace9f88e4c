"""Frames that we send ourselves: announcements of where an address lives, and what the heartbeat asks.

Encoders return bytes, decoders None for what they do not know; one class sends announcements.

Why they are needed: a VXLAN device with `proxy` swallows every ARP frame, so nobody hears of a moved address by itself;
and after an L3 miss the asker repeats its question only after a second (`retrans_time_ms`), unless it is told.
"""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Self

from myoverlay.kernel.netns import Namespace, refusal
from myoverlay.values import Address, Mac

ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 0x0800, 0x0806, 0x86DD
BROADCAST = b"\xff" * 6
#: ff02::1, all nodes, and the Ethernet address it maps to (RFC 2464 section 7).
ALL_NODES, ALL_NODES_MAC = bytes.fromhex("ff02" + "00" * 13 + "01"), bytes.fromhex("333300000001")
ICMPV6, NEIGHBOUR_ADVERTISEMENT = 58, 136
#: RFC 4861 section 4.4: replace a cached link-layer address. Neither R nor S: we are no router, nobody asked us.
OVERRIDE = 0x20000000
ARP_REQUEST, ARP_REPLY = 1, 2
ICMP, ECHO_REPLY, ECHO_REQUEST = 1, 0, 8
#: Ethernet header; Ethernet and IPv4 header; and all of an ARP frame; ICMP's header.
_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_ECHO = struct.Struct("!BBHHH")
ARP_LENGTH = _ETHERNET.size + _ARP.size


def announcement(address: Address, mac: Mac) -> bytes:
    """The frame that tells a whole segment that `address` is at `mac`."""
    return arp_announcement(address, mac) if address.version == 4 else neighbour_advertisement(address, mac)


def arp_announcement(address: Address, mac: Mac) -> bytes:
    """A broadcast ARP *reply* (RFC 826) that names `mac` as its target too. Raises ValueError for IPv6.

    A reply completes an asker's unfinished entry and releases the packets that wait for it; the miss message does not
    say who asks, hence to everybody. Warm entries follow at once only because target and sender are the same: this the
    kernel takes for gratuitous, while any other reply is ignored for a second after an entry's last change (locktime;
    arp_is_garp and arp_process in net/ipv4/arp.c).
    """
    if address.version != 4:
        raise ValueError(f"{address} is announced by ICMPv6, not by ARP")
    ethernet = struct.pack("!6s6sH", BROADCAST, mac.packed, ETH_P_ARP)
    return ethernet + struct.pack(
        "!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 2, mac.packed, address.packed, mac.packed, address.packed
    )


def neighbour_advertisement(address: Address, mac: Mac) -> bytes:
    """An unsolicited neighbour advertisement with override to all nodes (RFC 4861, 7.2.6). ValueError for IPv4."""
    if address.version != 6:
        raise ValueError(f"{address} is announced by ARP, not by ICMPv6")
    source = address.packed
    # Option 2, target link-layer address, one unit of eight bytes (section 4.6.1).
    tail = struct.pack("!I16sBB6s", OVERRIDE, source, 2, 1, mac.packed)
    length = 4 + len(tail)
    pseudo = source + ALL_NODES + struct.pack("!II", length, ICMPV6)
    checksum = _checksum(pseudo + struct.pack("!BBH", NEIGHBOUR_ADVERTISEMENT, 0, 0) + tail)
    ethernet = struct.pack("!6s6sH", ALL_NODES_MAC, mac.packed, ETH_P_IPV6)
    # Hop limit 255: receivers drop anything else, as it could have come from outside (section 7.1.2).
    header = struct.pack("!IHBB16s16s", 6 << 28, length, ICMPV6, 255, source, ALL_NODES)
    return ethernet + header + struct.pack("!BBH", NEIGHBOUR_ADVERTISEMENT, 0, checksum) + tail


def arp_request(source: Mac, sender: Address | None, target: Mac, address: Address) -> bytes:
    """The ARP request for `address` (IPv4), straight to the MAC that has it.

    Without a `sender` it is a probe (RFC 5227 section 1.1): the kernel answers it and keeps no neighbour entry of the
    asker; of one that names its address it does (arp_process in net/ipv4/arp.c).
    """
    known = sender.packed if sender is not None else bytes(4)
    arp = _ARP.pack(1, ETH_P_IP, 6, 4, ARP_REQUEST, source.packed, known, bytes(6), address.packed)
    return _ETHERNET.pack(target.packed, source.packed, ETH_P_ARP) + arp


def read_arp_reply(frame: bytes, us: Mac) -> tuple[Mac, Address] | None:
    """Who answers an ARP request of ours, and for which address; None for every other frame.

    Ethernet and ARP must agree on both ends. What follows is padding.
    """
    if len(frame) < ARP_LENGTH:
        return None
    to, by, kind = _ETHERNET.unpack_from(frame)
    *form, operation, sender, address, target, _ = _ARP.unpack_from(frame, _ETHERNET.size)
    if kind != ETH_P_ARP or form != [1, ETH_P_IP, 6, 4] or operation != ARP_REPLY:
        return None
    if not to == target == us.packed or by != sender or by[0] & 1 or not any(by):
        return None
    return Mac.unpack(sender), Address.unpack(address)


def echo_request(source: tuple[Mac, Address], target: tuple[Mac, Address], nonce: bytes, length: int) -> bytes:
    """An ICMP echo request (RFC 792) in an IPv4 packet of `length` bytes; four bytes of nonce tell it from others."""
    payload = nonce * ((length - _IPV4.size - _ECHO.size) // len(nonce) + 1)
    payload = payload[: length - _IPV4.size - _ECHO.size]
    ident, number = struct.unpack("!HH", nonce)
    body = _ECHO.pack(ECHO_REQUEST, 0, 0, ident, number) + payload
    body = _ECHO.pack(ECHO_REQUEST, 0, _checksum(body + bytes(len(body) & 1)), ident, number) + payload
    fields = (0x45, 0, length, 0, 0x4000, 64, ICMP)
    ends = (source[1].packed, target[1].packed)
    header = _IPV4.pack(*fields, _checksum(_IPV4.pack(*fields, 0, *ends)), *ends)
    return _ETHERNET.pack(target[0].packed, source[0].packed, ETH_P_IP) + header + body


def read_echo_reply(frame: bytes, us: tuple[Mac, Address]) -> tuple[Mac, Address, bytes, int] | None:
    """Who answers an echo of ours: MAC, address, nonce and the packet's length; None for every other frame."""
    if len(frame) < _ETHERNET.size + _IPV4.size + _ECHO.size:
        return None
    to, by, kind = _ETHERNET.unpack_from(frame)
    form, _, length, _, _, _, protocol, _, sender, target = _IPV4.unpack_from(frame, _ETHERNET.size)
    what, code, _, ident, number = _ECHO.unpack_from(frame, _ETHERNET.size + _IPV4.size)
    if (kind, form, protocol, what, code) != (ETH_P_IP, 0x45, ICMP, ECHO_REPLY, 0):
        return None
    if to != us[0].packed or target != us[1].packed or by[0] & 1 or not any(by) or _ETHERNET.size + length > len(frame):
        return None
    return Mac.unpack(by), Address.unpack(sender), struct.pack("!HH", ident, number), length


def echo_answered_to(frame: bytes, by: Address, to: Address, nonce: bytes) -> str | None:
    """The MAC that `by` sends its answer to an echo from `to` to; None for every other frame."""
    if len(frame) < _ETHERNET.size + _IPV4.size + _ECHO.size:
        return None
    target, _, kind = _ETHERNET.unpack_from(frame)
    form, *_, protocol, _, source, goal = _IPV4.unpack_from(frame, _ETHERNET.size)
    what, code, _, ident, number = _ECHO.unpack_from(frame, _ETHERNET.size + _IPV4.size)
    if (kind, form, protocol, what, code) != (ETH_P_IP, 0x45, ICMP, ECHO_REPLY, 0):
        return None
    if (source, goal) != (by.packed, to.packed) or struct.pack("!HH", ident, number) != nonce:
        return None
    return str(target.hex(":"))


def read_arp_request(frame: bytes, by: Address) -> Address | None:
    """The address whose MAC `by` asks for; None for every other frame, its announcements among them."""
    if len(frame) < ARP_LENGTH:
        return None
    *form, operation, _, sender, _, wanted = _ARP.unpack_from(frame, _ETHERNET.size)
    if frame[12:14] != b"\x08\x06" or form != [1, ETH_P_IP, 6, 4] or operation != ARP_REQUEST:
        return None
    return Address.unpack(wanted) if sender == by.packed and wanted != sender else None


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Announcer:
    """Sends announcements out of a bridge, as if they came from its own side: to every container on it."""

    def __init__(self, ns: Namespace, ifname: str) -> None:
        """Raises KernelRefused where the interface is not there."""
        self._ifname = ifname
        # Protocol 0: it only sends, so the kernel gives it nothing to read (packet(7)).
        self._socket = ns.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setblocking(False)
        try:
            self._socket.bind((ifname, 0))
        except OSError as error:
            self._socket.close()
            raise refusal(f"opening {ifname} for announcements", error) from error

    def announce(self, address: Address, mac: Mac) -> None:
        """Tell all containers on the bridge. Raises KernelRefused where the interface is down, gone or full."""
        try:
            self._socket.send(announcement(address, mac))
        except OSError as error:
            raise refusal(f"announcing {address} at {mac} on {self._ifname}", error) from error

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
