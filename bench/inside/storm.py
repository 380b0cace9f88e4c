"""Questions for many addresses that nobody has, within a second, one that somebody has among them.

    python -m bench.inside.storm FIRST COUNT VALID SECONDS

Runs in a container's namespace and asks by ARP out of its `eth0`, by frames of its own: the kernel's neighbour table
holds 1,024 entries for all namespaces together, and would ask for no more. Prints milliseconds from the question for
VALID to the first answer, or how long was waited where there was none within 5 s, and how long the storm took.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import select
import socket
import struct
import sys
import time

_ARP, _PATIENCE, _BATCH = 0x0806, 5.0, 50


def question(mac: bytes, near: bytes, asked: bytes) -> bytes:
    """An ARP request, broadcast."""
    head = b"\xff" * 6 + mac + struct.pack("!H", _ARP)
    return head + struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, mac, near, bytes(6), asked)


def is_answer(frame: bytes, asked: bytes) -> bool:
    """Whether a frame says who has the address."""
    return len(frame) >= 42 and frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2" and frame[28:32] == asked


def main(first: str, count: int, valid: str, seconds: float) -> None:
    """Ask, and print."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ARP))
    sock.bind(("eth0", _ARP))
    sock.setblocking(False)
    mac: bytes = sock.getsockname()[4]
    near = _own_address(valid)
    start, sought = int(ipaddress.IPv4Address(first)), ipaddress.IPv4Address(valid).packed
    asked_at = answered_at = 0.0

    def hear(until: float) -> None:
        nonlocal answered_at
        while (left := until - time.perf_counter()) > 0 and select.select([sock], [], [], left)[0]:
            with contextlib.suppress(BlockingIOError):
                if is_answer(sock.recv(256), sought) and not answered_at:
                    answered_at = time.perf_counter()

    began = time.perf_counter()
    for number in range(count):
        if number == count // 2:
            asked_at = time.perf_counter()
            _send(sock, question(mac, near, sought))
        _send(sock, question(mac, near, (start + number).to_bytes(4, "big")))
        if number % _BATCH == 0:
            hear(began + number * seconds / count)
    took = time.perf_counter() - began
    while not answered_at and time.perf_counter() < asked_at + _PATIENCE:
        hear(min(time.perf_counter() + 0.05, asked_at + _PATIENCE))
    answer = (answered_at - asked_at if answered_at else _PATIENCE) * 1000
    print(json.dumps({"answer ms": answer, "storm s": took}))


def _send(sock: socket.socket, frame: bytes) -> None:
    while True:
        try:
            sock.send(frame)
            return
        except BlockingIOError:
            select.select([], [sock], [], 0.1)


def _own_address(there: str) -> bytes:
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        probe.connect((there, 9))  # sends nothing
        return socket.inet_aton(probe.getsockname()[0])
    finally:
        probe.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
