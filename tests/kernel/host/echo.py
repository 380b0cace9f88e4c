"""Ears and voices inside a namespace: a sniffer, and ICMP echo without a `ping` binary."""

from __future__ import annotations

import errno
import secrets
import select
import socket
import struct
import threading
import time
from contextlib import suppress

from myoverlay.kernel.netns import Namespace
from myoverlay.values import Address, Mac

ICMP_FILTER, SO_TIMESTAMPNS = 1, 35
SOL_RAW, ECHO, ECHO_REPLY = 255, 8, 0


class Sniffer:
    """Hears every frame that reaches a container's interface, whomever it is for."""

    def __init__(self, ns: Namespace, mac: Mac) -> None:
        self._mac = mac.packed
        self._socket = ns.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind(("eth0", 3))
        self._socket.setblocking(False)

    def frames(self) -> list[bytes]:
        """What came in since the last time."""
        frames = []
        with suppress(BlockingIOError):
            while True:
                raw, sender = self._socket.recvfrom(65536)
                if sender[2] != socket.PACKET_OUTGOING:
                    frames.append(raw)
        return frames

    def foreign(self) -> list[bytes]:
        """Unicast frames for somebody else."""
        return [frame for frame in self.frames() if not frame[0] & 1 and frame[:6] != self._mac]

    def close(self) -> None:
        self._socket.close()


class Echo:
    """ICMP echo from inside a namespace, timed by the kernel's own stamps of arrival."""

    def __init__(self, ns: Namespace) -> None:
        self._socket = ns.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF & ~(1 << ECHO_REPLY)))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setblocking(False)
        self._ident = secrets.randbits(16)

    def send(self, address: Address, number: int) -> float:
        """Send one; returns when (as time.time)."""
        head = struct.pack("!BBHHH", ECHO, 0, 0, self._ident, number & 0xFFFF)
        body = bytes(56)
        words = struct.unpack(f"!{len(head + body) // 2}H", head + body)
        total = sum(words)
        total = (total & 0xFFFF) + (total >> 16)
        check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
        at = time.time()
        with suppress(OSError):  # unreachable, or no room to queue: it counts as lost
            self._socket.sendto(head[:2] + struct.pack("!H", check) + head[4:] + body, (address, 0))
        return at

    def receive(self, timeout: float) -> tuple[Address, int, float] | None:
        """Who answered which number when, or None."""
        deadline = time.monotonic() + timeout
        while True:
            if not select.select([self._socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            try:
                raw, extra, _, sender = self._socket.recvmsg(2048, 128)
            except OSError as error:
                if error.errno in (errno.EHOSTUNREACH, errno.EAGAIN):
                    continue
                raise
            start = (raw[0] & 15) * 4
            kind, _, _, ident, number = struct.unpack_from("!BBHHH", raw, start)
            if kind != ECHO_REPLY or ident != self._ident:
                continue
            seconds, nanos = struct.unpack("=qq", extra[0][2][:16])
            return Address(sender[0]), number, seconds + nanos / 1e9

    def close(self) -> None:
        self._socket.close()


class Pinging(threading.Thread):
    """Pings without pause: when each was sent and when it was answered."""

    def __init__(self, ns: Namespace, address: Address, interval: float) -> None:
        super().__init__(name="pinging", daemon=True)
        self._echo = Echo(ns)
        self._address, self._interval = address, interval
        self._end = threading.Event()
        self.sent: list[float] = []
        self.replies: dict[int, float] = {}

    def run(self) -> None:
        due = time.monotonic()
        while not self._end.is_set():
            self.sent.append(self._echo.send(self._address, len(self.sent)))
            due = max(due + self._interval, time.monotonic())
            while (left := due - time.monotonic()) > 0:
                self._hear(left)
        deadline = time.monotonic() + 0.25
        while len(self.replies) < len(self.sent) and time.monotonic() < deadline:
            self._hear(0.05)

    def _hear(self, timeout: float) -> None:
        heard = self._echo.receive(timeout)
        if heard is not None:
            self.replies[heard[1]] = heard[2]

    def stop(self) -> None:
        self._end.set()
        self.join(5)
        self._echo.close()

    def answered_after(self, at: float) -> float | None:
        """When the first ping sent after `at` that was answered was."""
        return next((t for n, t in sorted(self.replies.items()) if self.sent[n] >= at), None)

    def flows(self, count: int = 5) -> bool:
        """Are there so many answers, and all of the last ones?"""
        last = len(self.sent) - 2
        return last >= count and all(n in self.replies for n in range(last - count, last))

    def lost(self) -> list[int]:
        """The numbers never answered; after `stop`."""
        return [n for n in range(len(self.sent)) if n not in self.replies]
