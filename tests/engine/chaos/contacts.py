"""A program of the machine: each second one container asks another that it never talked to, by one datagram.

The first line on standard input is a list of containers (`name`, `side`, `address`, `netns`); sockets are opened in
each one's namespace. Each second the next pair across the two sides: both kernels' neighbour entries for one another
are removed, the asker sends, and the answer is waited for one second. A line of JSON per contact; ends at SIGTERM.
"""

from __future__ import annotations

import json
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

from lab import namespaces

ECHO, ASK = 7001, 7002
EVERY, PATIENCE = 1.0, 1.0
_MESSAGE = struct.Struct("=IHHII")
_NEIGH = struct.Struct("=BBHiHBB")
_NEWNEIGH, _DELNEIGH, _GETNEIGH, _ERROR, _DONE = 28, 29, 30, 2, 3
_REQUEST, _ACK, _DUMP = 1, 4, 0x300


class Neighbours:
    """The neighbour table of one namespace, of its IPv4 entries."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.settimeout(2)

    def interfaces_with(self, address: str) -> list[int]:
        """Where the table has an entry for an address."""
        wanted = socket.inet_aton(address)
        request = _NEIGH.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0)
        return [index for index, known in self._entries(request) if known == wanted]

    def forget(self, address: str) -> None:
        """Remove an address's entries."""
        for index in self.interfaces_with(address):
            body = _NEIGH.pack(socket.AF_INET, 0, 0, index, 0, 0, 0)
            body += struct.pack("=HH", 8, 1) + socket.inet_aton(address)
            self._send(_DELNEIGH, _REQUEST | _ACK, body)
            self._socket.recv(8192)  # done, or gone by itself meanwhile

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._socket.send(_MESSAGE.pack(_MESSAGE.size + len(body), kind, flags, 1, 0) + body)

    def _entries(self, request: bytes) -> Iterator[tuple[int, bytes]]:
        self._send(_GETNEIGH, _REQUEST | _DUMP, request)
        while True:
            data = self._socket.recv(65536)
            while len(data) >= _MESSAGE.size:
                length, kind, _, _, _ = _MESSAGE.unpack_from(data)
                if kind in (_DONE, _ERROR):
                    return
                if kind == _NEWNEIGH:
                    yield _parsed(data[_MESSAGE.size : length])
                data = data[(length + 3) & ~3 :]


def _parsed(body: bytes) -> tuple[int, bytes]:
    _, _, _, index, state, _, _ = _NEIGH.unpack_from(body)
    rest, address = body[_NEIGH.size :], b""
    while len(rest) >= 4:
        length, kind = struct.unpack_from("=HH", rest)
        if kind == 1:
            address = rest[4:length]
        rest = rest[(max(length, 4) + 3) & ~3 :]
    return index, address if state else b""


class Container:
    """One container: a socket that answers, one that asks, and its kernel's neighbours."""

    def __init__(self, name: str, side: str, address: str, netns: str) -> None:
        self.name, self.side, self.address = name, side, address
        view = {"net": netns}
        self.echo = namespaces.inside(view, lambda: self._socket(ECHO))
        self.ask = namespaces.inside(view, lambda: self._socket(ASK))
        self.neighbours = namespaces.inside(view, Neighbours)

    def _socket(self, port: int) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((self.address, port))
        made.setblocking(False)
        return made


def pairs(left: int, right: int) -> Iterator[tuple[int, int]]:
    """Every pair of the two sides once, all members in turn; then again from the start."""
    while True:
        for turn in range(right):
            for one in range(left):
                yield one, (one + turn) % right


class Contacts:
    """The loop: asks in time, answers at once."""

    def __init__(self, containers: list[Container]) -> None:
        sides = sorted({one.side for one in containers})
        self._sides = [[one for one in containers if one.side == side] for side in sides]
        self._pairs = pairs(*map(len, self._sides))
        self._selector = selectors.DefaultSelector()
        self._open: dict[int, tuple[Container, Container, float, float, bool]] = {}
        self._number = 0
        self.ended = False
        for one in containers:
            self._selector.register(one.echo, selectors.EVENT_READ, (one, True))
            self._selector.register(one.ask, selectors.EVENT_READ, (one, False))

    def run(self) -> None:
        due = time.monotonic()
        while not self.ended or self._open:
            now = time.monotonic()
            if now >= due and not self.ended:
                self._contact()
                due += EVERY
            self._give_up(now)
            for key, _ in self._selector.select(max(0.0, min(due - time.monotonic(), 0.1))):
                self._serve(*key.data)

    def _contact(self) -> None:
        left, right = next(self._pairs)
        asker, target = self._sides[0][left], self._sides[1][right]
        if self._number % 2:
            asker, target = target, asker
        asker.neighbours.forget(target.address)
        target.neighbours.forget(asker.address)
        first = not asker.neighbours.interfaces_with(target.address)
        self._number += 1
        self._open[self._number] = (asker, target, time.monotonic(), time.time(), first)
        try:
            asker.ask.sendto(struct.pack("!Q", self._number), (target.address, ECHO))
        except OSError:
            self._close(self._number, None)

    def _serve(self, one: Container, echo: bool) -> None:
        try:
            data, sender = (one.echo if echo else one.ask).recvfrom(64)
            if echo:
                one.echo.sendto(data, sender)
            else:
                self._close(struct.unpack("!Q", data)[0], time.monotonic())
        except OSError:
            return  # an ICMP error, or nobody who can be answered: the asker's patience tells

    def _give_up(self, now: float) -> None:
        for number in [number for number, opened in self._open.items() if now - opened[2] >= PATIENCE]:
            self._close(number, None)

    def _close(self, number: int, now: float | None) -> None:
        opened = self._open.pop(number, None)
        if opened is not None:
            asker, target, began, moment, first = opened
            ms = None if now is None else 1000 * (now - began)
            line: dict[str, Any] = {"asker": asker.name, "target": target.name, "moment": moment, "ms": ms}
            print(json.dumps(line | {"first": first}), flush=True)

    def end(self, *_: object) -> None:
        self.ended = True


def main() -> None:
    """Run until SIGTERM."""
    contacts = Contacts([Container(**one) for one in json.loads(sys.stdin.readline())])
    signal.signal(signal.SIGTERM, contacts.end)
    print("ready", file=sys.stderr, flush=True)
    contacts.run()


if __name__ == "__main__":
    main()
