"""A program for a container's namespace: sends numbered datagrams at an even pace and notes what arrives.

    flow.py ADDRESS PEER RATE ID SENT GOT

It says `ready`, begins at a line on standard input, stops sending at SIGTERM, and listens half a second longer. SENT
gets one double per number (when it was sent; negative where the kernel refused it), GOT pairs (number, the kernel's
time of arrival). One thread: it wakes for each datagram to send, and empties its receive buffer every 20 ms.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import sys
import time
from array import array

PORT = 7000
_BUFFER = 8 << 20
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SO_TIMESTAMPNS = 35
_HEAD = struct.Struct("!QQ")
_STAMP = struct.Struct("qq")
_PAIR = struct.Struct("=Qd")
_PADDING = bytes(84)
_DRAIN, _WRITE, _LINGER = 0.02, 0.5, 0.5
#: After a stall what is due is sent in bursts of this many, so that no queue of the kernel overflows by our doing.
_BURST = 20


class Flow:
    """Both directions as one end sees them."""

    def __init__(self, me: str, peer: str, rate: int, mark: int, sent: str, got: str) -> None:
        self.peer = (peer, PORT)
        self.rate = rate
        self.mark = mark
        self.number = 0
        self.ended = False
        self.times = array("d")
        self.arrivals: list[bytes] = []
        self.files = (open(sent, "ab", buffering=0), open(got, "ab", buffering=0))  # noqa: SIM115 - until the end
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        # What waits for an answer to ARP, wherever on the way, fills the sender's buffer: it shall be lost, not unsent.
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.socket.bind((me, PORT))
        self.socket.setblocking(False)

    def send(self, count: int) -> None:
        for _ in range(count):
            now = time.time()
            try:
                self.socket.sendto(_HEAD.pack(self.mark, self.number) + _PADDING, self.peer)
            except OSError:
                now = -now
            self.times.append(now)
            self.number += 1

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    data, extra, _, _ = self.socket.recvmsg(256, 64)
                except ConnectionRefusedError:
                    continue  # an ICMP error about something we sent
                if len(data) >= _HEAD.size and extra:
                    mark, number = _HEAD.unpack_from(data)
                    if mark == self.mark:
                        seconds, nanoseconds = _STAMP.unpack_from(extra[0][2])
                        self.arrivals.append(_PAIR.pack(number, seconds + nanoseconds / 1e9))

    def write(self) -> None:
        self.files[0].write(self.times.tobytes())
        self.files[1].write(b"".join(self.arrivals))
        del self.times[:]
        self.arrivals.clear()

    def run(self) -> None:
        start = time.monotonic()
        drained = written = start
        while not self.ended:
            now = time.monotonic()
            due = int((now - start) * self.rate) + 1 - self.number
            self.send(min(due, _BURST))
            if now - drained >= _DRAIN:
                self.drain()
                drained = now
            if now - written >= _WRITE:
                self.write()
                written = now
            time.sleep(0.0002 if due > _BURST else max(0.0, start + self.number / self.rate - time.monotonic()))
        until = time.monotonic() + _LINGER
        while time.monotonic() < until:
            self.drain()
            time.sleep(_DRAIN)
        self.write()

    def end(self, *_: object) -> None:
        self.ended = True


def main() -> None:
    """Run until SIGTERM."""
    me, peer, rate, mark, sent, got = sys.argv[1:]
    flow = Flow(me, peer, int(rate), int(mark), sent, got)
    signal.signal(signal.SIGTERM, flow.end)
    print("ready", flush=True)
    sys.stdin.readline()
    flow.run()


if __name__ == "__main__":
    main()
