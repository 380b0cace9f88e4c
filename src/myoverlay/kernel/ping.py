"""ICMP echo from a namespace to many addresses at once: does a host's kernel answer at all?"""

from __future__ import annotations

import secrets
import select
import socket
import struct
import time
from collections.abc import Collection

from myoverlay.kernel.netns import Namespace, refusal
from myoverlay.values import Address

_ECHO = struct.Struct("!BBHHH")
_REQUEST, _REPLY = 8, 0


def answering(ns: Namespace, addresses: Collection[Address], deadline: float) -> set[Address]:
    """Those IPv4 addresses that answer before the deadline. Raises KernelRefused where nothing can be sent at all."""
    wanted = {address for address in addresses if address.version == 4}
    mark = secrets.randbits(16)
    try:
        sock = ns.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    except OSError as error:
        raise refusal("pinging", error) from error
    found: set[Address] = set()
    with sock:
        sock.setblocking(False)
        for number, address in enumerate(sorted(wanted)):
            _send(sock, address, mark, number)
        while wanted - found and (left := deadline - time.monotonic()) > 0:
            if not select.select((sock,), (), (), left)[0]:
                break
            found |= _heard(sock, mark) & wanted
    return found


def _send(sock: socket.socket, address: Address, mark: int, number: int) -> None:
    head = _ECHO.pack(_REQUEST, 0, 0, mark, number & 0xFFFF)
    total = sum(struct.unpack("!4H", head))
    total = (total & 0xFFFF) + (total >> 16)
    try:
        sock.sendto(_ECHO.pack(_REQUEST, 0, ~total & 0xFFFF, mark, number & 0xFFFF), (address, 0))
    except OSError:
        return  # no route to this one: it does not answer


def _heard(sock: socket.socket, mark: int) -> set[Address]:
    """Who answered in the next packet. Behind the IPv4 header, whose length its first byte tells, stands ICMP's."""
    try:
        packet, (sender, _) = sock.recvfrom(256)
    except OSError:
        return set()
    start = (packet[0] & 15) * 4 if packet else 0
    if len(packet) < start + _ECHO.size:
        return set()
    kind, _, _, answered, _ = _ECHO.unpack_from(packet, start)
    return {Address(sender)} if (kind, answered) == (_REPLY, mark) else set()
